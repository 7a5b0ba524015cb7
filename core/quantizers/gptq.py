"""GPTQ behind the common contract: a factorization per input set and order, a column solve per linear and order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from core.configs import GPTQConfig, Order
from core.quantizers.base import BaseQuantizer, SolvedLinear
from core.quantizers.judged import STARVED, input_warnings
from core.solver.factor import InverseFactor
from core.solver.gptq import PreparedSet, prepare_set, solve
from core.solver.hessian import InputStatistics
from core.solver.loss import TargetLoss, quadratic_loss
from core.solver.refine import refine
from core.solver.rtn import round_to_nearest
from core.solver.target import Target, mismatch_target
from core.weights import QuantizedWeight

NO_TARGET = "The target of the float path could not be solved for; its own weights were rounded. Raise mismatch_damp."
NOTHING_HELD_OUT = "Too few calibration batches to keep one out; choices were judged on the tokens solved with."


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedInputs:
    """An input set's statistics beside what the solver made of them, once per order that is tried."""

    statistics: InputStatistics
    solvers: tuple[PreparedSet, ...]
    target: Target | None

    @property
    def judges(self) -> InputStatistics:
        """Returns the statistics that choose between solved weights."""
        return self.statistics.held_out or self.statistics


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """A solved weight that may be kept."""

    weight: QuantizedWeight
    solver: PreparedSet
    order: Order
    refined: bool = False


class GPTQQuantizer(BaseQuantizer[PreparedInputs | None]):
    """A linear without calibration tokens is rounded to nearest, with a warning in its result."""

    needs_calibration: ClassVar[bool] = True

    def __init__(self, config: GPTQConfig) -> None:
        self._config = config
        self._configs = tuple(replace(config, order=order) for order in config.order.tried)
        self.true_sequential = config.true_sequential
        self.carries_float_path = config.mismatch_alpha > 0
        self.feeds_all_experts = config.feed_all_experts
        self.float_path_every = config.mismatch_every
        self.follows_stream = self.carries_float_path and config.stream_beta > 0
        self.holds_out = config.holds_out

    def prepare(self, statistics: InputStatistics | None) -> PreparedInputs | None:
        """Orders and factorizes the Hessian; returns None where there is none."""
        if statistics is None or statistics.tokens == 0:
            return None
        return PreparedInputs(
            statistics=statistics,
            solvers=tuple(prepare_set(statistics.hessian_II, config) for config in self._configs),
            target=self._target(statistics),
        )

    def convert(self, W_OI: torch.Tensor, prepared: PreparedInputs | None) -> SolvedLinear:
        """Solves one weight."""
        if prepared is None:
            return self._round_starved(W_OI)
        statistics = prepared.statistics
        W_OI = W_OI.float()
        target_OI = W_OI if prepared.target is None else prepared.target.of(W_OI)
        kept = self._best(W_OI, prepared, self._attempts(target_OI, prepared))
        loss = quadratic_loss(W_OI - kept.weight.dequantize(), statistics.hessian_II)
        energy = quadratic_loss(W_OI, statistics.hessian_II)
        return SolvedLinear(
            weight=kept.weight,
            loss=loss,
            relative_loss=loss / energy if energy > 0 else 0.0,
            tokens=statistics.tokens,
            damp_percent=kept.solver.factor.damp_percent,
            order=str(kept.order),
            refined=kept.refined if self._config.refine_rounds else None,
            warnings=self._warnings(prepared, kept.solver),
        )

    def _attempts(self, target_OI: torch.Tensor, prepared: PreparedInputs) -> list[_Attempt]:
        """Returns what may be kept: refined weights alone where nothing but the tokens solved with could judge them."""
        solved = [*self._solve(target_OI, prepared)]
        if not self._config.refine_rounds:
            return solved
        refined = [self._refine(attempt, target_OI, prepared.statistics) for attempt in solved]
        return [*solved, *refined] if self.holds_out else refined

    def _solve(self, target_OI: torch.Tensor, prepared: PreparedInputs) -> Iterator[_Attempt]:
        for config, solver in zip(self._configs, prepared.solvers, strict=True):
            yield _Attempt(weight=solve(target_OI, solver, config).weight, solver=solver, order=config.order)

    def _refine(self, attempt: _Attempt, target_OI: torch.Tensor, statistics: InputStatistics) -> _Attempt:
        H_II = statistics.hessian_II
        damp = attempt.solver.factor.damp_percent * float(H_II.diagonal().mean())
        weight = refine(attempt.weight, target_OI, H_II, damp=damp, rounds=self._config.refine_rounds)
        return replace(attempt, weight=weight, refined=True)

    def _best(self, W_OI: torch.Tensor, prepared: PreparedInputs, attempts: Sequence[_Attempt]) -> _Attempt:
        """Returns the attempt with the least loss on held-out tokens, the first of equals."""
        if len(attempts) == 1:
            return attempts[0]
        judged = TargetLoss(W_OI, prepared.judges, self._config.mismatch_alpha, self._config.stream_beta)
        return min(attempts, key=lambda attempt: judged.of(attempt.weight.dequantize()))

    def _target(self, statistics: InputStatistics) -> Target | None:
        mismatch, config = statistics.mismatch, self._config
        if mismatch is None:
            return None
        return mismatch_target(
            mismatch, alpha=config.mismatch_alpha, beta=config.stream_beta, damp=config.mismatch_damp
        )

    def _warnings(self, prepared: PreparedInputs, solver: PreparedSet) -> tuple[str, ...]:
        statistics = prepared.statistics
        found = [*_warnings(statistics, solver.factor)]
        if self.holds_out and statistics.held_out is None:
            found.append(NOTHING_HELD_OUT)
        if statistics.mismatch is not None and prepared.target is None:
            found.append(NO_TARGET)
        return tuple(found)

    def _round_starved(self, W_OI: torch.Tensor) -> SolvedLinear:
        config = self._config
        weight = round_to_nearest(W_OI, bits=config.bits, group_size=config.group_size, sym=config.sym)
        return SolvedLinear(weight=weight, warnings=(STARVED,))


def _warnings(statistics: InputStatistics, factor: InverseFactor) -> tuple[str, ...]:
    raised = (f"Damping was raised to {factor.damp_percent:g}: {'; '.join(factor.steps)}.",) if factor.steps else ()
    return (*input_warnings(statistics), *raised)
