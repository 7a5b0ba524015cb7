"""Tells the application early that its process is asked to end: uvicorn waits for open streams before its lifespan
ends, and streams end only when they hear of it.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def on_termination(callback: Callable[[], None]) -> Iterator[None]:
    """Calls back in the running event loop at SIGINT or SIGTERM, and hands the signal on to whoever had it before.

    Outside the main thread, where Python knows no signals, nothing is called.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def handle(number: int, stack: FrameType | None) -> None:
        loop.call_soon_threadsafe(callback)
        earlier = before[signal.Signals(number)]
        if callable(earlier):
            earlier(number, stack)

    for number in SIGNALS:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
