"""Turns a run's events into a fraction and an estimate of the seconds left; used by the terminal and the worker alike.

The fraction never falls and never exceeds 1; the estimate is None until three blocks of this attempt were timed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from core.events import BlockQuantized, Event, RunStarted, Stage, StageAdvanced, StageStarted

# Shares of wall time on the bench model; only the bar's evenness hangs on them, never the estimate while blocks run.
STAGE_SHARES = {
    Stage.PREFLIGHT: 0.01,
    Stage.CALIBRATING: 0.04,
    Stage.QUANTIZING: 0.80,
    Stage.PACKING: 0.03,
    Stage.EVALUATING: 0.12,
}
BLOCKS_BEFORE_ESTIMATE = 3
WINDOW_BLOCKS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """fraction: 0 to 1. seconds_left: estimate, None while unknown. blocks_done counts resumed blocks too."""

    stage: Stage
    fraction: float
    seconds_left: float | None
    blocks_done: int
    blocks_total: int


class ProgressEstimator:
    """Feed it every event of one run, in order; each answer is monotone within the run."""

    def __init__(self) -> None:
        """Starts at zero, in preflight."""
        self._stage = Stage.PREFLIGHT
        self._fraction = 0.0
        self._blocks_done = 0
        self._blocks_total = 0
        self._blocks_timed = 0
        self._recent_seconds: deque[float] = deque(maxlen=WINDOW_BLOCKS)

    def update(self, event: Event) -> Progress:
        """Takes one event and returns the progress after it."""
        if isinstance(event, RunStarted):
            self._blocks_total = event.blocks_total
            self._blocks_done = event.blocks_resumed
        elif isinstance(event, StageStarted):
            self._stage = event.stage
            self._advance(0.0)
        elif isinstance(event, StageAdvanced) and event.stage == self._stage != Stage.QUANTIZING:
            self._advance(event.done / max(event.total, 1))
        elif isinstance(event, BlockQuantized):
            self._blocks_done = event.block + 1
            self._blocks_timed += 1
            self._recent_seconds.append(event.seconds)
            self._advance(self._blocks_done / max(self._blocks_total, 1))
        return self.current()

    def current(self) -> Progress:
        """Returns the progress after the last event."""
        return Progress(
            stage=self._stage,
            fraction=self._fraction,
            seconds_left=self._seconds_left(),
            blocks_done=self._blocks_done,
            blocks_total=self._blocks_total,
        )

    def _advance(self, within_stage: float) -> None:
        before = sum(share for stage, share in STAGE_SHARES.items() if list(Stage).index(stage) < self._stage_index())
        reached = before + STAGE_SHARES[self._stage] * min(within_stage, 1.0)
        self._fraction = max(self._fraction, min(reached, 1.0))

    def _stage_index(self) -> int:
        return list(Stage).index(self._stage)

    def _seconds_left(self) -> float | None:
        if self._blocks_timed < BLOCKS_BEFORE_ESTIMATE:
            return None
        per_block = sum(self._recent_seconds) / len(self._recent_seconds)
        whole = per_block * self._blocks_total / STAGE_SHARES[Stage.QUANTIZING]
        return max(whole * (1.0 - self._fraction), 0.0)
