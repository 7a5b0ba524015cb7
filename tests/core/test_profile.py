from __future__ import annotations

import time

import pytest

from core import profile
from core.profile import Profile, Work, summarise


def test_a_span_inside_takes_its_seconds_from_the_one_around_it() -> None:
    """Every second is counted once: the kinds add up to the wall time of the outermost span."""
    recorded = Profile()
    started = time.perf_counter()
    with recorded.recording(), profile.span(Work.SOLVE):
        time.sleep(0.01)
        with profile.span(Work.SEARCH):
            time.sleep(0.02)
    wall = time.perf_counter() - started
    assert recorded.amounts[Work.SOLVE].seconds >= 0.01
    assert recorded.amounts[Work.SEARCH].seconds >= 0.02
    assert sum(recorded.seconds().values()) <= wall
    assert recorded.amounts[Work.SOLVE].seconds < wall - 0.02


def test_without_a_profile_nothing_is_recorded() -> None:
    """A span outside a run, and one after it, go nowhere."""
    recorded = Profile()
    with recorded.recording():
        pass
    before = recorded.seconds()
    with profile.span(Work.SOLVE):
        profile.count(Work.SOLVE, nbytes=3)
    assert recorded.seconds() == before
    assert profile.active() is None


def test_the_product_share_is_what_the_products_need_at_the_machines_rate() -> None:
    """Operations in two dtypes are each divided by their own rate."""
    recorded = Profile()
    with recorded.recording():
        profile.count(Work.FORWARD, operations=10.0, dtype="bfloat16")
        profile.count(Work.LOSS, operations=4.0, dtype="float32")
    recorded.amounts[Work.OTHER].seconds = 8.0
    summary = summarise(recorded, {"bfloat16": 10.0, "float32": 4.0})
    assert summary.product_share == pytest.approx(0.25)


def test_an_error_inside_a_span_closes_it() -> None:
    """What follows a failed piece of work is not charged to it."""
    recorded = Profile()
    with recorded.recording():
        with pytest.raises(ValueError, match="torn"), profile.span(Work.LOAD):
            raise ValueError("torn")
        before = recorded.amounts[Work.LOAD].seconds
        time.sleep(0.002)
    assert recorded.amounts[Work.LOAD].seconds == before
