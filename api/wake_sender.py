"""Sends wake-ups from a thread of its own: no request waits for the broker, and a burst costs few of them."""

from __future__ import annotations

import threading
from collections import Counter
from queue import SimpleQueue

from store.queue import Waker

MOST_WAITING = 8
"""Of one queue class. More workers than this that fall idle at once hear of the rest by their own sweeps."""


class WakeSender:
    """Safe to share between threads; the thread starts with the first wake-up."""

    def __init__(self, waker: Waker) -> None:
        self._waker = waker
        self._asked: SimpleQueue[tuple[str, str] | None] = SimpleQueue()
        self._waiting: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def ask(self, queue_class: str, hint: str) -> None:
        """Returns at once; where enough of a class wait to be sent, one more is left out. hint: as in `Waker.wake`."""
        with self._lock:
            if self._waiting[queue_class] >= MOST_WAITING:
                return
            self._waiting[queue_class] += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._send, name="wake-ups", daemon=True)
                self._thread.start()
        self._asked.put((queue_class, hint))

    def close(self) -> None:
        """Sends what waits; a broker that does not answer costs one try."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._asked.put(None)
            thread.join()

    def _send(self) -> None:
        for queue_class, hint in iter(self._asked.get, None):
            with self._lock:
                self._waiting[queue_class] -= 1
            self._waker.wake(queue_class, hint)
