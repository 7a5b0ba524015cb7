"""One worker's wish to end: set by a signal handler, read by the supervisor and the dispatcher. Waits for nothing."""

from __future__ import annotations

import threading


class Drain:
    """The first request lets the block that is under way finish; a second, or a cold one, ends the child at once."""

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._at_once = threading.Event()

    def request(self, *, at_once: bool = False) -> None:
        """Asks for the end; safe in a signal handler, since nothing in the main thread ever waits on these flags."""
        if at_once or self._requested.is_set():
            self._at_once.set()
        self._requested.set()

    @property
    def requested(self) -> bool:
        """Whether this worker takes no more jobs."""
        return self._requested.is_set()

    @property
    def at_once(self) -> bool:
        """Whether a running child is not given the time to finish its block."""
        return self._at_once.is_set()
