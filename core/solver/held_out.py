"""Keeps some calibration inputs out of the solve, so that choices between solved weights are judged on other tokens."""

from __future__ import annotations

from dataclasses import replace

import torch

from core.solver.hessian import HessianAccumulator, InputStatistics

# Of every eight batches the seventh: one eighth of the tokens, and among those beside which the float path runs.
HELD_OUT_EVERY = 8
HELD_OUT_NUMBER = 6


class HeldOutAccumulator:
    """Two `HessianAccumulator`s: most batches are collected to solve with, every eighth to judge by."""

    def __init__(self, in_features: int, device: torch.device) -> None:
        """Starts at zero."""
        self._solved = HessianAccumulator(in_features, device)
        self._held_out = HessianAccumulator(in_features, device)

    def of_batch(self, number: int) -> HessianAccumulator:
        """Returns where the inputs of the batch with that number are added."""
        return self._held_out if number % HELD_OUT_EVERY == HELD_OUT_NUMBER else self._solved

    def take(self, other: HeldOutAccumulator) -> None:
        """See `HessianAccumulator.take`."""
        self._solved.take(other._solved)
        self._held_out.take(other._held_out)

    def finish(self) -> InputStatistics:
        """Returns the statistics to solve with; `held_out` is None where too few batches came.

        Inputs that came with batches to judge by alone, as an expert's may, are solved with.
        """
        solved, held_out = self._solved.finish(), self._held_out.finish()
        if not held_out.tokens:
            return solved
        return replace(solved, held_out=held_out) if solved.tokens else held_out
