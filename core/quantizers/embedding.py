"""Rounds an input embedding to nearest, on scales that are searched where calibration tokens weigh most.

As a linear from one-hot tokens its Hessian is diagonal: how often each token came. So no rounding can make up for
another, and the best code is the nearest one.

Legend: O out_features (the embedding's width), I in_features (the vocabulary), G groups, S tokens in a group.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from core.configs import GPTQConfig, QuantizationConfig
from core.quantizers.base import BaseQuantizer, SolvedLinear
from core.solver import grid
from core.solver.hessian import InputStatistics
from core.solver.rtn import round_on


class EmbeddingQuantizer(BaseQuantizer[None]):
    """counts_I: how often each token came; None without calibration, where all weigh alike."""

    needs_calibration: ClassVar[bool] = False

    def __init__(self, config: QuantizationConfig, counts_I: torch.Tensor | None) -> None:
        self._config = config
        self._counts_I = counts_I
        self._signed = isinstance(config, GPTQConfig) and config.signed_scales

    def prepare(self, statistics: InputStatistics | None) -> None:
        """Has nothing to prepare."""

    def convert(self, W_OI: torch.Tensor, prepared: None) -> SolvedLinear:  # noqa: ARG002 - the contract's
        """Rounds some rows, which are dimensions of the embedding."""
        config, W_OI = self._config, W_OI.float()
        size = W_OI.shape[1] if config.group_size == -1 else config.group_size
        fitted = grid.searched_grid(
            grid.in_groups(W_OI, size),
            self._costs(W_OI).view(-1, size),
            bits=config.bits,
            sym=config.sym,
            signed=self._signed,
        )
        weight = round_on(W_OI, fitted, bits=config.bits, group_size=config.group_size, sym=config.sym)
        if self._counts_I is None:
            return SolvedLinear(weight=weight)
        share_I = self._counts_I / self._counts_I.sum()
        loss = float(((weight.dequantize() - W_OI).square() @ share_I).sum())
        energy = float((W_OI.square() @ share_I).sum())
        return SolvedLinear(
            weight=weight,
            loss=loss,
            relative_loss=loss / energy if energy > 0 else 0.0,
            tokens=int(self._counts_I.sum()),
        )

    def _costs(self, W_OI: torch.Tensor) -> torch.Tensor:
        """Returns what a token's squared difference costs: its count, and the mean count, as any token may come."""
        if self._counts_I is None:
            return torch.ones(W_OI.shape[1], device=W_OI.device)
        return self._counts_I + self._counts_I.mean()


def token_counts(tokens_NT: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Returns how often each token comes, float32 [I]."""
    return torch.bincount(tokens_NT.flatten(), minlength=vocabulary).float()
