"""One worker's wish to end: set by a signal handler, read by the supervisor and the dispatcher. Waits for nothing."""

from __future__ import annotations

import threading


class Drain:
    """The first request lets the block that is under way finish; a second, or a cold one, ends the child at once.

    An operator may hold the worker instead: it gives its job back in the same way, stays, and can be let go on.
    """

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._at_once = threading.Event()
        self._held = threading.Event()

    def request(self, *, at_once: bool = False) -> None:
        """Asks for the end; safe in a signal handler, since nothing in the main thread ever waits on these flags."""
        if at_once or self._requested.is_set():
            self._at_once.set()
        self._requested.set()

    def hold(self, *, held: bool) -> None:
        """Keeps the worker from jobs, or lets it take them again."""
        if held:
            self._held.set()
        else:
            self._held.clear()

    @property
    def held(self) -> bool:
        """Whether an operator keeps this worker from jobs."""
        return self._held.is_set()

    @property
    def requested(self) -> bool:
        """Whether this worker takes no more jobs."""
        return self._requested.is_set() or self._held.is_set()

    @property
    def at_once(self) -> bool:
        """Whether a running child is not given the time to finish its block."""
        return self._at_once.is_set()
