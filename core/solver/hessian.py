"""Adds up H = mean over tokens of x xᵀ for one input set, batch by batch, the upper triangle only.

Legend: N tokens of one batch, I in_features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Columns per block of the triangle: wide enough for the product's full rate, narrow enough to skip most of the rest.
BLOCK_COLUMNS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class InputStatistics:
    """What the solver knows of a linear's inputs.

    hessian_II: float32 [I, I], symmetric, mean over tokens. tokens: rows that were added. dead_inputs: inputs that
    were 0 in every row. dropped_rows: rows left out because they held a value that is not finite.
    """

    hessian_II: torch.Tensor  # noqa: N815 - shapes live in names
    tokens: int
    dead_inputs: int
    dropped_rows: int


class HessianAccumulator:
    """Collects the inputs of one input set; holds I x I floats and nothing of the inputs themselves."""

    def __init__(self, in_features: int, device: torch.device) -> None:
        """Starts at zero."""
        self._sum_II = torch.zeros(in_features, in_features, dtype=torch.float32, device=device)
        self._tokens = 0
        self._dropped_rows = 0

    def add(self, X: torch.Tensor, token_mask: torch.Tensor | None = None) -> None:
        """Adds inputs of any leading shape [..., I]; token_mask, of that shape, is False where a row is padding."""
        X_NI = X.reshape(-1, X.shape[-1])
        if token_mask is not None and token_mask.numel() == X_NI.shape[0]:
            X_NI = X_NI[token_mask.reshape(-1)]
        X_NI = X_NI.float()
        finite_N = torch.isfinite(X_NI.sum(dim=1))
        if not bool(finite_N.all()):
            self._dropped_rows += int((~finite_N).sum())
            X_NI = X_NI[finite_N]
        self._tokens += X_NI.shape[0]
        for start in range(0, X_NI.shape[1], BLOCK_COLUMNS):
            stop = start + BLOCK_COLUMNS
            self._sum_II[start:stop, start:].addmm_(X_NI[:, start:stop].T, X_NI[:, start:])

    def finish(self) -> InputStatistics:
        """Returns the statistics; the accumulator's memory passes to them."""
        H_II = self._sum_II
        H_II.div_(max(self._tokens, 1))
        H_II.triu_()
        diagonal_I = H_II.diagonal().clone()
        H_II.add_(H_II.T.clone())
        H_II.diagonal().copy_(diagonal_I)
        return InputStatistics(
            hessian_II=H_II,
            tokens=self._tokens,
            dead_inputs=int((diagonal_I == 0).sum()),
            dropped_rows=self._dropped_rows,
        )
