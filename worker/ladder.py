"""Decides how hard a child is asked to end: a stop line, then TERM, then KILL, each after its own patience.

Pure: it is told the time and the wishes and answers with a step; `runner` takes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Step(IntEnum):
    """Rungs, from gentle to final. A rung is taken once and never taken back."""

    NONE = 0
    STOP_AFTER_BLOCK = 1
    STOP_NOW = 2
    TERM = 3
    KILL = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds on each rung before the next one."""

    after_block: float
    stop: float
    term: float


class Ladder:
    """One per child."""

    def __init__(self, patience: Patience) -> None:
        self._patience = {
            Step.STOP_AFTER_BLOCK: patience.after_block,
            Step.STOP_NOW: patience.stop,
            Step.TERM: patience.term,
        }
        self._rung = Step.NONE
        self._since = 0.0

    @property
    def rung(self) -> Step:
        """Returns the highest rung that was taken."""
        return self._rung

    def climb(self, wanted: Step, now: float) -> Step:
        """Returns the rung to take now, NONE where it is taken already and its patience is not used up.

        wanted: the lowest rung that the reason for stopping asks for; NONE while there is no reason.
        """
        reached = max(wanted, self._after_patience(now))
        if reached <= self._rung:
            return Step.NONE
        self._rung, self._since = reached, now
        return reached

    def _after_patience(self, now: float) -> Step:
        limit = self._patience.get(self._rung)
        if limit is None or now - self._since < limit:
            return self._rung
        return Step(self._rung + 1)
