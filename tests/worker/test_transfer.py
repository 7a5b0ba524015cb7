"""How far a fetch is: the share, the seconds left by the rate of late, and the part of the job's bar that it fills."""

from __future__ import annotations

import pytest

from worker.hub_bars import ByteCount
from worker.transfer import STEP_SECONDS, WINDOW_STEPS, TransferEstimator

MEGABYTE = 1_000_000


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_follows_the_rate():
    """What was there before has no rate; a faster connection shows within half a minute."""
    clock = Clock()
    estimator = TransferEstimator(clock)
    assert estimator.update(20 * MEGABYTE, 100 * MEGABYTE).seconds_left is None
    clock.now = 2.0
    halfway = estimator.update(40 * MEGABYTE, 100 * MEGABYTE)
    assert halfway.share == pytest.approx(0.4)
    assert halfway.seconds_left == pytest.approx(6.0)
    done = 40 * MEGABYTE
    for _ in range(WINDOW_STEPS):
        clock.now += STEP_SECONDS
        done += MEGABYTE // 2
        late = estimator.update(done, 100 * MEGABYTE)
    assert late.seconds_left == pytest.approx((100 * MEGABYTE - done) / MEGABYTE)
    clock.now += 1.0
    ended = estimator.update(100 * MEGABYTE, 100 * MEGABYTE)
    assert (ended.share, ended.seconds_left) == (1.0, None)


def test_a_fetch_of_nothing_is_done():
    assert TransferEstimator().update(0, 0).share == 1.0


def test_bytes_are_told_a_few_times_a_second_and_at_the_end():
    """Never more than the whole, and nothing where the whole is not known."""
    told: list[tuple[int, int]] = []
    count = ByteCount(1000, lambda *counted: told.append(counted))
    for _ in range(2000):
        count.add(1)
    assert told[0] == (1, 1000)
    assert told[-1] == (1000, 1000)
    assert len(told) < 1500
    unknown = ByteCount(0, lambda *counted: told.append(counted))
    told.clear()
    unknown.add(10)
    assert told == []
