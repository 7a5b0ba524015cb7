"""Turns Ctrl-C and TERM into a question that the engine asks at every batch; a second one ends the program at once."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether a stop was asked for."""

    def __init__(self, on_first: Callable[[], None]) -> None:
        """`on_first` is called when the first signal comes."""
        self._asked = False
        self._on_first = on_first

    def __call__(self) -> bool:
        """Returns True once a stop was asked for."""
        return self._asked

    def handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's signature
        """Takes a signal; raises KeyboardInterrupt on the second."""
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        self._on_first()


@contextmanager
def stop_on_signals(on_first: Callable[[], None]) -> Iterator[StopRequest]:
    """Listens for the signals inside the context; call it from the main thread."""
    request = StopRequest(on_first)
    previous = {number: signal.signal(number, request.handle) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
