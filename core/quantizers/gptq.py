"""GPTQ behind the common contract: a factorization per input set and order, a column solve per linear and order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from core.configs import GPTQConfig, Order
from core.quantizers.base import BaseQuantizer, SolvedLinear
from core.quantizers.judged import STARVED, judged
from core.solver.gptq import PreparedSet, prepare_set, solve
from core.solver.hessian import InputStatistics
from core.solver.loss import TargetLoss
from core.solver.refine import refine
from core.solver.rtn import round_to_nearest
from core.solver.target import Target, mismatch_target, wanted_change
from core.weights import QuantizedWeight

NO_TARGET = "The target of the float path could not be solved for; its own weights were rounded. Raise mismatch_damp."
NOTHING_HELD_OUT = "Too few calibration batches to keep one out; choices were judged on the tokens solved with."


class PreparedInputs:
    """An input set's statistics, and what the solver makes of them when it is first asked for.

    The widest linear's matrices are large: with its last linear a set lets each of them go behind its last use.
    """

    def __init__(self, statistics: InputStatistics, target: Target | None) -> None:
        """target: None without a float path, and where its Hessian cannot be factorized."""
        self.statistics = statistics
        self.target = target
        self.serves_last = False
        self._solvers: dict[GPTQConfig, PreparedSet] = {}

    @property
    def judges(self) -> InputStatistics:
        """Returns the statistics that choose between solved weights."""
        return self.statistics.held_out or self.statistics

    def solver(self, config: GPTQConfig) -> PreparedSet:
        """Returns order and factor; raises NumericalError."""
        prepared = self._solvers.pop(config, None) or prepare_set(self.statistics.hessian_II, config)
        if not self.serves_last:
            self._solvers[config] = prepared
        return prepared

    def release_float_path(self) -> None:
        """Lets go of what targets are made of, where no further linear needs one."""
        if self.serves_last and self.statistics.mismatch is not None:
            self.target = None
            self.statistics.mismatch.release()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """A solved weight that may be kept. damp_percent, steps: of its factor."""

    weight: QuantizedWeight
    damp_percent: float
    steps: tuple[str, ...]
    order: Order
    refined: bool = False


class GPTQQuantizer(BaseQuantizer[PreparedInputs | None]):
    """A linear without calibration tokens is rounded to nearest, with a warning in its result."""

    needs_calibration: ClassVar[bool] = GPTQConfig.needs_calibration

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
        """Factorizes what targets need; returns None where there are no statistics."""
        if statistics is None or statistics.tokens == 0:
            return None
        return PreparedInputs(statistics, self._target(statistics))

    def serve_last(self, prepared: PreparedInputs | None) -> None:
        """Lets `convert` take what was prepared apart."""
        if prepared is not None:
            prepared.serves_last = True

    def convert(self, W_OI: torch.Tensor, prepared: PreparedInputs | None) -> SolvedLinear:
        """Solves one weight; raises NumericalError where the Hessian cannot be factorized."""
        if prepared is None:
            return self._round_starved(W_OI)
        statistics = prepared.statistics
        W_OI = W_OI.float()
        warnings = self._warnings(prepared)
        target_OI = W_OI if prepared.target is None else prepared.target.of(W_OI)
        if not self.holds_out:
            prepared.release_float_path()
        kept = self._best(W_OI, prepared, self._attempts(target_OI, prepared))
        prepared.release_float_path()
        return replace(
            judged(W_OI, kept.weight, statistics, (*_damping(kept), *warnings)),
            damp_percent=kept.damp_percent,
            order=str(kept.order),
            refined=kept.refined if self._config.refine_rounds else None,
        )

    def _attempts(self, target_OI: torch.Tensor, prepared: PreparedInputs) -> list[_Attempt]:
        """Returns what may be kept: refined weights alone where nothing but the tokens solved with could judge them."""
        solved = [self._solve(target_OI, prepared, config) for config in self._configs]
        if not self._config.refine_rounds:
            return solved
        refined = [self._refine(attempt, target_OI, prepared.statistics) for attempt in solved]
        return [*solved, *refined] if self.holds_out else refined

    def _solve(self, target_OI: torch.Tensor, prepared: PreparedInputs, config: GPTQConfig) -> _Attempt:
        solver = prepared.solver(config)
        factor = solver.factor
        return _Attempt(
            weight=solve(target_OI, solver, config).weight,
            damp_percent=factor.damp_percent,
            steps=factor.steps,
            order=config.order,
        )

    def _refine(self, attempt: _Attempt, target_OI: torch.Tensor, statistics: InputStatistics) -> _Attempt:
        H_II = statistics.hessian_II
        damp = attempt.damp_percent * float(H_II.diagonal().mean())
        weight = refine(attempt.weight, target_OI, H_II, damp=damp, rounds=self._config.refine_rounds)
        return replace(attempt, weight=weight, refined=True)

    def _best(self, W_OI: torch.Tensor, prepared: PreparedInputs, attempts: Sequence[_Attempt]) -> _Attempt:
        """Returns the attempt with the least loss on held-out tokens, the first of equals."""
        if len(attempts) == 1:
            return attempts[0]
        judges, config = prepared.judges, self._config
        wanted_OI = None
        if judges.mismatch is not None:
            alpha, beta = config.mismatch_alpha, config.stream_beta
            wanted_OI = wanted_change(W_OI, judges.mismatch, alpha=alpha, beta=beta)
        target_loss = TargetLoss(W_OI, judges.hessian_II, wanted_OI)
        return min(attempts, key=lambda attempt: target_loss.of(attempt.weight.dequantize()))

    def _target(self, statistics: InputStatistics) -> Target | None:
        mismatch, config = statistics.mismatch, self._config
        if mismatch is None:
            return None
        return mismatch_target(
            mismatch, alpha=config.mismatch_alpha, beta=config.stream_beta, damp=config.mismatch_damp
        )

    def _warnings(self, prepared: PreparedInputs) -> tuple[str, ...]:
        statistics = prepared.statistics
        found = []
        if self.holds_out and statistics.held_out is None:
            found.append(NOTHING_HELD_OUT)
        if statistics.mismatch is not None and prepared.target is None:
            found.append(NO_TARGET)
        return tuple(found)

    def _round_starved(self, W_OI: torch.Tensor) -> SolvedLinear:
        config = self._config
        weight = round_to_nearest(W_OI, bits=config.bits, group_size=config.group_size, sym=config.sym)
        return SolvedLinear(weight=weight, warnings=(STARVED,))


def _damping(attempt: _Attempt) -> tuple[str, ...]:
    return (f"Damping was raised to {attempt.damp_percent:g}: {'; '.join(attempt.steps)}.",) if attempt.steps else ()
