"""What is done inside one block: input sets are solved from their statistics, and linears get their new weights."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from core.environment import return_free_pages
from core.errors import NumericalError, RunStoppedError
from core.events import Event, LinearQuantized, Stage, StageAdvanced, WarningRaised
from core.model.activations import HiddenStates
from core.model.input_sets import InputSets
from core.model.structure import in_features, linear_weight, set_linear_weight
from core.preflight.architectures import NUMBERED_EXPERT
from core.profile import Work, span
from core.quantizers.base import BaseQuantizer, SolvedLinear
from core.quantizers.folding import ChannelScales, Folding
from core.solver.held_out import HeldOutAccumulator
from core.solver.hessian import HessianAccumulator, InputStatistics

Accumulator = HessianAccumulator | HeldOutAccumulator

SECONDS_BETWEEN_BEATS = 1.0
_FLOAT32_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SolvedBlock:
    """A quantized block. outputs: hidden states that leave it, per batch. seconds: solving time per linear.

    changed: float parameters that took channel scales over, by their path in the block.
    """

    outputs: list[HiddenStates]
    linears: Mapping[str, SolvedLinear]
    seconds: Mapping[str, float]
    changed: Mapping[str, torch.Tensor] = field(default_factory=dict)


def linear_event(index: int, name: str, solved: SolvedLinear, seconds: float) -> LinearQuantized:
    """Returns what is told of a solved linear."""
    return LinearQuantized(
        block=index,
        linear=name,
        bits=solved.weight.bits,
        group_size=solved.weight.group_size,
        loss=solved.loss,
        relative_loss=solved.relative_loss,
        tokens=solved.tokens,
        damp_percent=solved.damp_percent,
        seconds=seconds,
        warnings=solved.warnings,
    )


@dataclass(slots=True, kw_only=True)
class BlockTask:
    """What happens inside one block, in the order in which the walk asks for it."""

    quantizer: BaseQuantizer[Any]
    on_event: Callable[[Event], None]
    should_stop: Callable[[], bool]
    index: int
    linears: Mapping[str, nn.Module]
    quantizers: Mapping[str, BaseQuantizer[Any]]
    solved: dict[str, SolvedLinear] = field(default_factory=dict)
    folding: Folding | None = None
    _seconds: dict[str, float] = field(default_factory=dict)
    _source_of: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)
    _uses: Counter[tuple[str, ...]] = field(default_factory=Counter)
    _prepared: WeakKeyDictionary[Accumulator, dict[BaseQuantizer[Any], Any]] = field(default_factory=WeakKeyDictionary)
    _width_behind: dict[tuple[str, ...], int] = field(default_factory=dict)
    _last_beat: float = field(default_factory=time.perf_counter)

    def share(self, sets: InputSets, shared: Mapping[int, int]) -> None:
        """Takes note of the sets' order and of those that an earlier one's statistics serve, see Conduct."""
        self._width_behind = {names: in_features(self.linears[behind[0]]) for names, behind in pairwise(sets)}
        self._source_of = {sets[rank]: sets[first] for rank, first in shared.items()}
        self._uses = Counter(self._source_of.get(names, names) for names in sets)

    def make_collector(self, width: int, device: torch.device) -> Accumulator:
        """Returns what collects the inputs of a set."""
        return (HeldOutAccumulator if self.quantizer.holds_out else HessianAccumulator)(width, device)

    def solve_set(self, names: tuple[str, ...], collector: Accumulator | None) -> None:
        """Solves the linears of a set and writes their weights; collector: None where no token reached it."""
        with span(Work.HESSIAN):
            statistics = None if collector is None else collector.finish()
        known = {} if collector is None else self._prepared.setdefault(collector, {})
        source = self._source_of.get(names, names)
        self._uses[source] -= 1
        quantizers = [*dict.fromkeys(self.quantizers[name] for name in names)]
        for quantizer in quantizers:
            alike = [name for name in names if self.quantizers[name] is quantizer]
            last = self._uses[source] <= 0 and quantizer is quantizers[-1]
            self._solve_alike(quantizer, alike, statistics, known, last=last)
        # Experts are many and small: what they leave is little against the time of asking.
        if not NUMBERED_EXPERT.search(f".{names[0]}"):
            return_free_pages(_FLOAT32_BYTES * self._width_behind.get(names, 0) ** 2)

    def _solve_alike(
        self,
        quantizer: BaseQuantizer[Any],
        names: Sequence[str],
        statistics: InputStatistics | None,
        known: dict[BaseQuantizer[Any], Any],
        *,
        last: bool,
    ) -> None:
        """Solves the linears of one input set that share their options; known: what an earlier set prepared.

        last: whether the statistics serve no linear behind these.
        """
        started = time.perf_counter()
        quantizer.beat = self._beat
        weights = {name: linear_weight(self.linears[name]) for name in names}
        scales = self._channel_scales(quantizer, weights, statistics)
        if scales is not None and statistics is not None:
            statistics = scales.statistics(statistics)
        with self._naming(names):
            prepared = known.get(quantizer)
            if prepared is None or scales is not None:
                prepared = known[quantizer] = quantizer.prepare(statistics)
        preparing = (time.perf_counter() - started) / len(names)
        for name in names:
            self.stop_if_asked()
            started = time.perf_counter()
            if last and name == names[-1]:
                quantizer.serve_last(prepared)
            with self._naming(names):
                solved = quantizer.convert(weights[name] if scales is None else scales.into(weights[name]), prepared)
            W_hat_OI = solved.weight.dequantize()
            if scales is not None:
                W_hat_OI, solved = scales.out_of(W_hat_OI), replace(solved, channel_alpha=scales.alpha)
            set_linear_weight(self.linears[name], W_hat_OI)
            self.solved[name] = solved
            self._seconds[name] = preparing + time.perf_counter() - started
            self._report(name, solved)

    def result(self, outputs: list[HiddenStates]) -> SolvedBlock:
        """Returns the block as it is solved. outputs: what leaves it."""
        changed = {} if self.folding is None else self.folding.hand_over()
        ordered = {name: self.solved[name] for name in self.linears}
        return SolvedBlock(outputs=outputs, linears=ordered, seconds=self._seconds, changed=changed)

    def _channel_scales(
        self, quantizer: BaseQuantizer[Any], weights: Mapping[str, torch.Tensor], statistics: InputStatistics | None
    ) -> ChannelScales | None:
        if self.folding is None or not quantizer.scales_channels:
            return None
        return self.folding.choose(quantizer, [*weights], [weight.float() for weight in weights.values()], statistics)

    @contextmanager
    def _naming(self, names: Sequence[str]) -> Iterator[None]:
        """Names the block and the linears in errors of numerics."""
        try:
            yield
        except NumericalError as error:
            raise NumericalError(f"block {self.index} {', '.join(names)}", error.detail) from error

    def _report(self, name: str, solved: SolvedLinear) -> None:
        self.on_event(linear_event(self.index, name, solved, self._seconds[name]))
        # Experts are many: their warnings stay in the report, where one sentence for each block sums them up.
        for message in () if NUMBERED_EXPERT.search(f".{name}") else solved.warnings:
            self.on_event(WarningRaised(code="linear", message=message, block=self.index, linear=name))
        self._advanced()

    def _beat(self) -> None:
        self.stop_if_asked()
        now = time.perf_counter()
        if now - self._last_beat > SECONDS_BETWEEN_BEATS:
            self._last_beat = now
            self._advanced()

    def _advanced(self) -> None:
        done, total = len(self.solved), len(self.linears)
        self.on_event(StageAdvanced(stage=Stage.QUANTIZING, done=done, total=total))

    def stop_if_asked(self) -> None:
        """Raises RunStoppedError where the run is to stop."""
        if self.should_stop():
            raise RunStoppedError(self.index)
