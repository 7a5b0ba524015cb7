"""A thread that works beside a run, one piece after the other, and hands results and errors back.

What it spends goes into the run's profile as time beside it. torch counts threads for each thread of the process, so
that one with a single core takes none from the run's products.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from types import TracebackType
from typing import Generic, Self, TypeVar

import torch

from core.profile import Profile, active

Result = TypeVar("Result")


class Piece(Generic[Result]):
    """One piece of work under way."""

    def __init__(self, future: Future[Result], spent: Profile, run: Profile | None) -> None:
        self._future = future
        self._spent = spent
        self._run = run

    @property
    def done(self) -> bool:
        """Returns whether it has come to its end, whatever the end."""
        return self._future.done()

    def wait(self, seconds: float) -> bool:
        """Waits that long at most; returns whether it has come to its end."""
        return bool(wait([self._future], seconds).done)

    def result(self) -> Result:
        """Waits, and returns what it returned or raises what it raised; to be called once."""
        try:
            return self._future.result()
        finally:
            if self._run is not None:
                self._run.add_beside(self._spent)


class Aside:
    """The thread. As a context it ends with the last piece that was begun, whether or not an error is on its way."""

    def __init__(self, name: str, prepare: Callable[[], None] | None = None) -> None:
        """name: of the thread, for a debugger. prepare: called in it first; without it the thread takes one core."""
        self._pool = ThreadPoolExecutor(1, f"bitmill-{name}", initializer=prepare or partial(torch.set_num_threads, 1))

    def begin(self, work: Callable[[], Result]) -> Piece[Result]:
        """Queues a piece of work for the run whose profile is open here."""
        spent = Profile()
        context = contextvars.Context()

        def run() -> Result:
            with torch.no_grad(), spent.recording():
                return work()

        return Piece(self._pool.submit(context.run, run), spent, active())

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drops what was not begun and waits for what was."""
        self._pool.shutdown(wait=True, cancel_futures=True)
