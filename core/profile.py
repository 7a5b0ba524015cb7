"""Where a run's time goes: seconds, bytes and floating-point operations by kind of work.

Code that does the work opens `span`s; they cost two clock readings and end nowhere unless a run has opened a profile in
its context. A span inside another one takes its seconds from it, so the kinds add up to the wall time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Work(StrEnum):
    """A kind of work, in the order in which a block meets it."""

    CHECK = "check"
    LOAD = "load"
    FORWARD = "forward"
    HESSIAN = "hessian"
    FACTORIZATION = "factorization"
    TARGET = "target"
    SEARCH = "search"
    SOLVE = "solve"
    REFINE = "refine"
    LOSS = "loss"
    PACK = "pack"
    WRITE = "write"
    OTHER = "other"


@dataclass(slots=True)
class Amount:
    """What one kind of work took. operations: floating-point operations of matrix products, by dtype.

    seconds: of the run's own thread. seconds_beside: of threads that worked while it went on, in no sum of seconds.
    """

    seconds: float = 0.0
    seconds_beside: float = 0.0
    nbytes: int = 0
    operations: dict[str, float] = field(default_factory=dict)


class Profile:
    """Adds up work; one per run, opened and read by one thread."""

    def __init__(self) -> None:
        """Starts with nothing done."""
        self.amounts: dict[Work, Amount] = {work: Amount() for work in Work}
        self._open: list[Work] = []
        self._since = 0.0

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Makes this the profile that `span` and `count` of this context write to."""
        token = _active.set(self)
        try:
            with self.span(Work.OTHER):
                yield
        finally:
            _active.reset(token)

    @contextmanager
    def span(self, work: Work) -> Iterator[None]:
        """Gives the seconds inside to a kind of work, but for those that a span inside takes."""
        self._charge()
        self._open.append(work)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def count(self, work: Work, *, nbytes: int = 0, operations: float = 0.0, dtype: str = "") -> None:
        """Adds bytes moved, and operations of matrix products in a dtype."""
        amount = self.amounts[work]
        amount.nbytes += nbytes
        if operations:
            amount.operations[dtype] = amount.operations.get(dtype, 0.0) + operations

    def add_beside(self, other: Profile) -> None:
        """Takes over what a thread beside this one's did; its seconds do not count among those of the run."""
        for work, amount in other.amounts.items():
            if work is not Work.OTHER:
                self.amounts[work].seconds_beside += amount.seconds
            self.count(work, nbytes=amount.nbytes)
            for dtype, operations in amount.operations.items():
                self.count(work, operations=operations, dtype=dtype)

    def seconds(self) -> dict[str, float]:
        """Returns the seconds of every kind that took any."""
        return {str(work): amount.seconds for work, amount in self.amounts.items() if amount.seconds}

    def operations(self) -> dict[str, float]:
        """Returns the operations of all matrix products, by dtype."""
        total: dict[str, float] = {}
        for amount in self.amounts.values():
            for dtype, operations in amount.operations.items():
                total[dtype] = total.get(dtype, 0.0) + operations
        return total

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.amounts[self._open[-1]].seconds += now - self._since
        self._since = now


_active: ContextVar[Profile | None] = ContextVar("bitmill_profile", default=None)


def active() -> Profile | None:
    """Returns the profile of this context. A coroutine has a context of its own: it is to ask before it starts."""
    return _active.get()


@contextmanager
def span(work: Work) -> Iterator[None]:
    """See Profile.span; does nothing where no profile is open."""
    profile = _active.get()
    if profile is None:
        yield
        return
    with profile.span(work):
        yield


def count(work: Work, *, nbytes: int = 0, operations: float = 0.0, dtype: str = "") -> None:
    """See Profile.count; does nothing where no profile is open."""
    profile = _active.get()
    if profile is not None:
        profile.count(work, nbytes=nbytes, operations=operations, dtype=dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileSummary:
    """A finished profile. rates: operations per second of this machine's matrix products, by dtype, measured."""

    amounts: dict[str, dict[str, Any]]
    operations: dict[str, float]
    rates: dict[str, float]
    seconds: float

    @property
    def product_share(self) -> float:
        """Returns the seconds that the run's matrix products take at the machine's rate, as a share of all."""
        needed = sum(operations / self.rates[dtype] for dtype, operations in self.operations.items())
        return needed / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {
            "seconds": self.seconds,
            "product_share": self.product_share,
            "operations": self.operations,
            "operations_per_second": self.rates,
            "work": self.amounts,
        }


def summarise(profile: Profile, rates: dict[str, float]) -> ProfileSummary:
    """Returns what a profile adds up to; `rates` must name every dtype in which products were counted."""
    amounts = {
        str(work): {
            "seconds": amount.seconds,
            "seconds_beside": amount.seconds_beside,
            "bytes": amount.nbytes,
            "operations": dict(amount.operations),
        }
        for work, amount in profile.amounts.items()
    }
    return ProfileSummary(
        amounts=amounts,
        operations=profile.operations(),
        rates=rates,
        seconds=sum(amount.seconds for amount in profile.amounts.values()),
    )
