"""GPTQ behind the common contract: one order and one factorization per input set, one column solve per linear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from core.configs import GPTQConfig
from core.quantizers.base import BaseQuantizer, SolvedLinear
from core.solver.gptq import PreparedSet, prepare_set, solve
from core.solver.hessian import InputStatistics
from core.solver.loss import quadratic_loss
from core.solver.rtn import round_to_nearest
from core.solver.target import mismatch_map

STARVED = "No calibration token reached this linear; it was rounded to nearest."


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedInputs:
    """An input set's statistics beside what the solver made of them."""

    statistics: InputStatistics
    solver: PreparedSet
    target_II: torch.Tensor | None  # noqa: N815 - shapes live in names


class GPTQQuantizer(BaseQuantizer[PreparedInputs | None]):
    """A linear without calibration tokens is rounded to nearest, with a warning in its result."""

    needs_calibration: ClassVar[bool] = True

    def __init__(self, config: GPTQConfig) -> None:
        self._config = config
        self.true_sequential = config.true_sequential
        self.carries_float_path = config.mismatch_alpha > 0
        self.feeds_all_experts = config.feed_all_experts

    def prepare(self, statistics: InputStatistics | None) -> PreparedInputs | None:
        """Orders and factorizes the Hessian; returns None where there is none."""
        if statistics is None or statistics.tokens == 0:
            return None
        solver = prepare_set(statistics.hessian_II, self._config)
        return PreparedInputs(statistics=statistics, solver=solver, target_II=self._target(statistics, solver))

    def convert(self, W_OI: torch.Tensor, prepared: PreparedInputs | None) -> SolvedLinear:
        """Solves one weight."""
        if prepared is None:
            return self._round_starved(W_OI)
        statistics = prepared.statistics
        W_OI = W_OI.float()
        target_OI = W_OI if prepared.target_II is None else W_OI @ prepared.target_II
        weight = solve(target_OI, prepared.solver, self._config).weight
        loss = quadratic_loss(W_OI - weight.dequantize(), statistics.hessian_II)
        energy = quadratic_loss(W_OI, statistics.hessian_II)
        return SolvedLinear(
            weight=weight,
            loss=loss,
            relative_loss=loss / energy if energy > 0 else 0.0,
            tokens=statistics.tokens,
            damp_percent=prepared.solver.factor.damp_percent,
            order=str(self._config.order),
            warnings=_warnings(prepared),
        )

    def _target(self, statistics: InputStatistics, solver: PreparedSet) -> torch.Tensor | None:
        mismatch = statistics.mismatch
        if mismatch is None:
            return None
        damp = solver.factor.damp_percent * float(mismatch.hessian_II.diagonal().mean())
        return mismatch_map(mismatch.hessian_II, mismatch.cross_II, self._config.mismatch_alpha, damp)

    def _round_starved(self, W_OI: torch.Tensor) -> SolvedLinear:
        config = self._config
        weight = round_to_nearest(W_OI, bits=config.bits, group_size=config.group_size, sym=config.sym)
        return SolvedLinear(weight=weight, warnings=(STARVED,))


def _warnings(prepared: PreparedInputs) -> tuple[str, ...]:
    statistics, factor = prepared.statistics, prepared.solver.factor
    width = statistics.hessian_II.shape[0]
    found = []
    if statistics.tokens < width:
        found.append(f"Only {statistics.tokens} calibration tokens for {width} inputs; use at least as many as inputs.")
    if statistics.dead_inputs:
        found.append(f"{statistics.dead_inputs} inputs were 0 in every calibration token; their weights were rounded.")
    if statistics.dropped_rows:
        found.append(f"{statistics.dropped_rows} calibration tokens had values that are not finite and were left out.")
    if factor.steps:
        found.append(f"Damping was raised to {factor.damp_percent:g}: {'; '.join(factor.steps)}.")
    return tuple(found)
