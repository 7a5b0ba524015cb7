"""Stops a run at a place that does not hang on how quickly its blocks reach the disk."""

from __future__ import annotations

from collections.abc import Callable

from core.events import Event, LinearQuantized


def stop_in(block: int) -> tuple[Callable[[Event], None], Callable[[], bool]]:
    """Returns a listener and a question whether to stop: yes once a linear of that block is solved.

    The block needs a second linear, in front of which the question is asked; all blocks before are recorded then.
    """
    seen: list[LinearQuantized] = []

    def listen(event: Event) -> None:
        if isinstance(event, LinearQuantized) and event.block >= block:
            seen.append(event)

    return listen, lambda: bool(seen)
