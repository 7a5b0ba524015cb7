"""Keeps some calibration inputs out of the solve, so that choices between solved weights are judged on other tokens."""

from __future__ import annotations

from dataclasses import replace

import torch

from core.solver.hessian import HessianAccumulator, InputStatistics

# Of every eight batches the seventh: one eighth of the tokens, and among those beside which the float path runs.
HELD_OUT_EVERY = 8
HELD_OUT_NUMBER = 6


class HeldOutAccumulator:
    """Collects like `HessianAccumulator`, into two: most batches to solve with, every eighth to judge by."""

    def __init__(self, in_features: int, device: torch.device) -> None:
        """Starts at zero."""
        self._solved = HessianAccumulator(in_features, device)
        self._held_out = HessianAccumulator(in_features, device)
        self._batches = 0

    def add(
        self,
        X: torch.Tensor,
        token_mask: torch.Tensor | None = None,
        float_X: torch.Tensor | None = None,
        drift: torch.Tensor | None = None,
    ) -> None:
        """Adds one batch, as `HessianAccumulator.add`."""
        held_out = self._batches % HELD_OUT_EVERY == HELD_OUT_NUMBER
        self._batches += 1
        (self._held_out if held_out else self._solved).add(X, token_mask, float_X, drift)

    def finish(self) -> InputStatistics:
        """Returns the statistics to solve with; `held_out` is None where too few batches came."""
        held_out = self._held_out.finish()
        return replace(self._solved.finish(), held_out=held_out if held_out.tokens else None)
