"""Turns the bytes of a fetch that have come into a share of the whole and the seconds left, by the rate of late."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

STEP_SECONDS = 0.5
WINDOW_STEPS = 60
"""The rate is that of the last half a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """share: 0 to 1. seconds_left: None while no rate is known, and at the end."""

    share: float
    seconds_left: float | None


class TransferEstimator:
    """Feed it how many bytes are there, as they come; one per fetch."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts with what is there at the first update: bytes of an earlier attempt have no rate."""
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque(maxlen=WINDOW_STEPS)

    def update(self, done: int, total: int) -> Transfer:
        """Returns how far it is; done and total in bytes."""
        now = self._clock()
        if not self._seen or now - self._seen[-1][0] >= STEP_SECONDS:
            self._seen.append((now, done))
        since, before = self._seen[0]
        came = done - before
        rated = came > 0 and now - since >= STEP_SECONDS and done < total
        return Transfer(
            share=min(done / total, 1.0) if total else 1.0,
            seconds_left=(total - done) * (now - since) / came if rated else None,
        )
