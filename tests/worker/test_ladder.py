"""The ladder from a stop line to KILL: pure, so its clock is an argument."""

from __future__ import annotations

from worker.ladder import Ladder, Patience, Step

PATIENCE = Patience(after_block=100, stop=10, term=5)


def test_nothing_happens_without_a_reason():
    ladder = Ladder(PATIENCE)
    assert [ladder.climb(Step.NONE, now) for now in (0, 1_000, 2_000)] == [Step.NONE] * 3


def test_a_cancel_climbs_rung_by_rung_each_taken_once():
    """Stop line, ten seconds later TERM, five seconds later KILL, and nothing after that."""
    ladder = Ladder(PATIENCE)
    taken = [(now, ladder.climb(Step.STOP_NOW, now)) for now in (0, 9, 10, 14, 15, 1_000)]
    assert [(now, step) for now, step in taken if step] == [(0, Step.STOP_NOW), (10, Step.TERM), (15, Step.KILL)]


def test_a_drain_waits_for_the_block_first():
    ladder = Ladder(PATIENCE)
    taken = [(now, ladder.climb(Step.STOP_AFTER_BLOCK, now)) for now in range(200)]
    assert [(now, step) for now, step in taken if step] == [
        (0, Step.STOP_AFTER_BLOCK),
        (100, Step.STOP_NOW),
        (110, Step.TERM),
        (115, Step.KILL),
    ]


def test_a_stronger_wish_skips_rungs_and_none_is_taken_back():
    ladder = Ladder(PATIENCE)
    assert ladder.climb(Step.STOP_AFTER_BLOCK, 0) is Step.STOP_AFTER_BLOCK
    assert ladder.climb(Step.KILL, 1) is Step.KILL
    assert ladder.climb(Step.STOP_NOW, 2) is Step.NONE
    assert ladder.rung is Step.KILL
