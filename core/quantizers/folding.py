"""Channel scales of one block: chosen per input set, kept in the effective weights while the block runs, handed to the
operations in front when it is done.

Scales are powers of two, so the numbers that pass the block are the same before and after, bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from core.model.folds import Fold, Folds, scale_rows
from core.quantizers.base import BaseQuantizer, SolvedLinear
from core.solver.channels import exact_exponents
from core.solver.hessian import InputStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelScales:
    """One input set's scales: weights are multiplied by 2^exponent. alpha: what the search found."""

    exponents_I: torch.Tensor  # noqa: N815 - shapes live in names
    alpha: float

    def into(self, W_OI: torch.Tensor) -> torch.Tensor:
        """Returns the weights as they are rounded."""
        return torch.ldexp(W_OI.float(), self.exponents_I)

    def out_of(self, W_OI: torch.Tensor) -> torch.Tensor:
        """Returns the weights as the unscaled inputs meet them."""
        return torch.ldexp(W_OI, -self.exponents_I)

    def statistics(self, statistics: InputStatistics) -> InputStatistics:
        """Returns what is known of the inputs once they are divided by 2^exponent."""
        H_II = torch.ldexp(torch.ldexp(statistics.hessian_II, -self.exponents_I), -self.exponents_I[:, None])
        return replace(statistics, hessian_II=H_II)


@dataclass(slots=True, kw_only=True)
class Folding:
    """What one block's operations take over. solved: the block's linears as far as they are."""

    block: nn.Module
    folds: Folds
    solved: dict[str, SolvedLinear]
    _taken: list[tuple[Fold, torch.Tensor]] = field(default_factory=list)

    def choose(
        self,
        quantizer: BaseQuantizer[Any],
        names: Sequence[str],
        weights: Sequence[torch.Tensor],
        statistics: InputStatistics | None,
    ) -> ChannelScales | None:
        """Returns the scales of a set; None where it has no statistics or nothing in front takes them over."""
        fold = self.folds.get(tuple(names))
        if fold is None or statistics is None or not statistics.tokens or not quantizer.scales_channels:
            return None
        lowest_R, highest_R = exact_exponents(self._values(fold.producer))
        rows_I, count = fold.rows_I, len(lowest_R)
        inputs_R = torch.bincount(rows_I, minlength=count).clamp(min=1)

        def allowed(wanted_I: torch.Tensor) -> torch.Tensor:
            mean_R = torch.zeros(count, device=rows_I.device).index_add_(0, rows_I, wanted_I) / inputs_R
            return mean_R.round().long().clamp(lowest_R, highest_R)[rows_I]

        exponents_I, alpha = quantizer.channel_exponents(weights, statistics, allowed)
        self._taken.append((fold, exponents_I))
        return ChannelScales(exponents_I=exponents_I, alpha=alpha)

    def hand_over(self) -> Mapping[str, torch.Tensor]:
        """Divides the operations in front; returns the float parameters that changed, by path in the block."""
        changed: dict[str, torch.Tensor] = {}
        for fold, exponents_I in self._taken:
            if not bool(exponents_I.any()):
                continue
            count = self._values(fold.producer).shape[0]
            against_R = exponents_I.new_zeros(count).index_copy_(0, fold.rows_I, -exponents_I)
            if fold.producer in self.solved:
                self._rescale(fold.producer, against_R)
                continue
            module = self.block.get_submodule(fold.producer)
            scale_rows(module, against_R)
            changed |= {f"{fold.producer}.{name}": value for name, value in module.named_parameters(recurse=False)}
        return changed

    def _rescale(self, name: str, exponents_R: torch.Tensor) -> None:
        solved = self.solved[name]
        scales_OG = torch.ldexp(solved.weight.scales_OG.float(), exponents_R[:, None]).half()
        self.solved[name] = replace(solved, weight=replace(solved.weight, scales_OG=scales_OG))

    def _values(self, producer: str) -> torch.Tensor:
        """Returns what would be divided, a row per output."""
        if producer in self.solved:
            return self.solved[producer].weight.scales_OG
        return torch.stack([p.detach() for p in self.block.get_submodule(producer).parameters(recurse=False)], dim=1)
