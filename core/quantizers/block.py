"""Quantizes one block: the walk that the in-memory interface and the disk-to-disk pipeline share.

It runs the block suspended at its input sets, hands each set's statistics to the quantizer, and leaves the block's
linears with their quantized weights, so that everything behind them sees what a loader will compute.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from core.environment import return_free_pages
from core.errors import NumericalError, RunStoppedError
from core.events import Event, LinearQuantized, Stage, StageAdvanced, WarningRaised
from core.model.activations import Activations, HiddenStates
from core.model.capture import BlockArguments, CapturedBatch
from core.model.experts import each_expert_reached
from core.model.folds import Folds, discover_folds
from core.model.input_sets import Discovery, InputSets, discover, held_bytes
from core.model.passes import BatchRun
from core.model.residual import discover_streams
from core.model.structure import find_linears, linear_weight, set_linear_weight, structure_key
from core.model.suspend import Conduct, SuspendedBlock, collect_without_suspending
from core.preflight.architectures import NUMBERED_EXPERT
from core.profile import Work, span
from core.quantizers.base import BaseQuantizer, SolvedLinear
from core.quantizers.folding import ChannelScales, Folding
from core.solver.held_out import HeldOutAccumulator
from core.solver.hessian import HessianAccumulator, InputStatistics

Accumulator = HessianAccumulator | HeldOutAccumulator

SECONDS_BETWEEN_BEATS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockBatch:
    """One calibration batch in front of a block: its hidden states and the block's other arguments."""

    hidden: HiddenStates
    arguments: BlockArguments
    token_mask: torch.Tensor | None = None


def block_batches(captured: Sequence[CapturedBatch], hidden: Sequence[HiddenStates], index: int) -> list[BlockBatch]:
    """Returns the batches in front of one block from what was captured and the hidden states that enter it."""
    return [
        BlockBatch(hidden=states, arguments=batch.arguments[index], token_mask=batch.token_mask)
        for batch, states in zip(captured, hidden, strict=True)
    ]


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
class BlockWalk:
    """Quantizes blocks one after the other; keeps the input sets of blocks that are built alike.

    choose: the quantizer of a linear by block number and name, None where it stays in float; without it, `quantizer`
    for all. should_stop is asked before every batch and every linear. activations: what is kept between uses, and the
    memory that it may take.
    """

    quantizer: BaseQuantizer[Any]
    on_event: Callable[[Event], None]
    should_stop: Callable[[], bool]
    choose: Callable[[int, str], BaseQuantizer[Any] | None] | None = None
    activations: Activations = field(default_factory=Activations)
    _known_sets: dict[object, Discovery] = field(default_factory=dict)
    _known_held: dict[object, int] = field(default_factory=dict)
    _known_streams: dict[object, dict[str, str]] = field(default_factory=dict)
    _known_folds: dict[object, Folds] = field(default_factory=dict)

    def entering(
        self, states: Sequence[torch.Tensor], floats: Sequence[torch.Tensor] | None = None
    ) -> list[HiddenStates]:
        """Returns what enters the first block. floats: where the float path begins with other states."""
        carried, every = self.quantizer.carries_float_path, self.quantizer.float_path_every
        keep = self.activations.keep
        kept = [keep(batch) for batch in states]
        beside = kept if floats is None else [keep(batch) for batch in floats]
        return [
            HiddenStates(quantized=batch, float_path=twin if carried and number % every == 0 else None)
            for number, (batch, twin) in enumerate(zip(kept, beside, strict=True))
        ]

    def quantize(
        self, index: int, block: nn.Module, batches: Sequence[BlockBatch], *, outputs: bool = True
    ) -> SolvedBlock:
        """Quantizes one block in place. Raises RunStoppedError, NumericalError with the linear's name.

        outputs: whether what leaves the block is needed; of the last block it mostly is not.
        """
        found = find_linears(block)
        quantizers = self._quantizers(index, found)
        linears = {name: found[name] for name in quantizers}
        task = _BlockTask(walk=self, index=index, linears=linears, quantizers=quantizers)
        runs = [task.batch_run(block, batch) for batch in batches]
        if not self.quantizer.needs_calibration or not linears:
            for name in task.linears:
                task.solve_set((name,), None)
            return task.result(self._pass_unchanged(runs) if outputs else [])
        discovery = self._input_sets(block, task.linears, runs[0])
        sets = discovery.sets
        task.folding = Folding(block=block, folds=self._folds(block, task, sets, runs[0]), solved=task.solved)
        if self.quantizer.true_sequential:
            streams = self._streams(block, task.linears, runs[0])
            # What a linear is to make up for in its stream is its own.
            shared = {rank: first for rank, first in discovery.shared.items() if not streams.keys() & {*sets[rank]}}
            task.share(sets, shared)
            suspended = SuspendedBlock(task.linears, sets, task.make_collector, task.solve_set, streams)
            conduct = Conduct(
                suspended=self._admitted(task.linears, sets, batches, runs[0]),
                keep=self.activations.keep,
                outputs=outputs,
                shared=shared,
            )
            return task.result(suspended.run(runs, conduct))
        collected, beside = collect_without_suspending(task.linears, sets, task.make_collector, runs)
        for names in sets:
            task.solve_set(names, collected.pop(names, None))
        passed = zip(runs, beside, strict=True) if outputs else ()
        return task.result([self.kept(run.run(), float_states) for run, float_states in passed])

    def _admitted(
        self, linears: Mapping[str, nn.Module], sets: InputSets, batches: Sequence[BlockBatch], first: BatchRun
    ) -> int | None:
        """Returns how many batches may stay suspended, by what the first holds in front of a set; None for all."""
        if not self.activations.is_limited:
            return None
        key = structure_key(linears)
        if key not in self._known_held:
            # The float path stands one set ahead of the other, which holds no more there than this does at its most.
            self._known_held[key] = max(held_bytes(linears, sets, first.run))
        share = self._known_held[key] / max(batches[0].hidden.numel, 1)
        return self.activations.admit(
            [round(share * batch.hidden.numel * (1 + batch.hidden.has_float_path)) for batch in batches]
        )

    def kept(self, quantized: torch.Tensor, float_path: torch.Tensor | None) -> HiddenStates:
        """Puts away what left a block."""
        keep = self.activations.keep
        return HiddenStates(quantized=keep(quantized), float_path=None if float_path is None else keep(float_path))

    def _pass_unchanged(self, runs: Sequence[BatchRun]) -> list[HiddenStates]:
        """Returns what leaves a block none of whose linears waits for statistics."""
        return [self.kept(run.run(), None if run.run_float is None else run.run_float()) for run in runs]

    def forward(self, block: nn.Module, batches: Sequence[BlockBatch]) -> list[torch.Tensor]:
        """Runs the quantized path through a block as it is; returns what leaves it. Raises RunStoppedError."""
        task = _BlockTask(walk=self, index=0, linears={}, quantizers={})
        return [task.batch_run(block, batch).run() for batch in batches]

    def forward_float(self, block: nn.Module, batches: Sequence[BlockBatch]) -> list[torch.Tensor | None]:
        """Runs the float path through a block as it is; None for batches without one. Raises RunStoppedError."""
        task = _BlockTask(walk=self, index=0, linears={}, quantizers={})
        runs = (task.batch_run(block, batch).run_float for batch in batches)
        return [None if run is None else run() for run in runs]

    def _quantizers(self, index: int, names: Iterable[str]) -> dict[str, BaseQuantizer[Any]]:
        """Returns the quantizer of every linear that is quantized."""
        if self.choose is None:
            return dict.fromkeys(names, self.quantizer)
        chosen = {name: self.choose(index, name) for name in names}
        return {name: quantizer for name, quantizer in chosen.items() if quantizer is not None}

    def _streams(self, block: nn.Module, linears: Mapping[str, nn.Module], first: BatchRun) -> dict[str, nn.Module]:
        """Returns the linears that write into the residual stream, where what it has drifted is to be made up for."""
        if not self.quantizer.follows_stream:
            return {}
        key = structure_key(linears)
        if key not in self._known_streams:
            self._known_streams[key] = discover_streams(block, linears, first.run)
        return {name: block.get_submodule(path) for name, path in self._known_streams[key].items()}

    def _input_sets(self, block: nn.Module, linears: Mapping[str, nn.Module], first: BatchRun) -> Discovery:
        key = structure_key(linears)
        if key not in self._known_sets:
            with each_expert_reached(block):
                self._known_sets[key] = discover(linears, first.run, unbroken=self.quantizer.carries_float_path)
        return self._known_sets[key]

    def _folds(self, block: nn.Module, task: _BlockTask, sets: InputSets, first: BatchRun) -> Folds:
        """Returns what can take over channel scales; experts are too many to try each."""
        if not self.quantizer.scales_channels:
            return {}
        key = structure_key(task.linears)
        if key not in self._known_folds:
            plain = {name: module for name, module in task.linears.items() if not NUMBERED_EXPERT.search(f".{name}")}
            tried = tuple(names for names in sets if names[0] in plain)
            self._known_folds[key] = discover_folds(block, plain, tried, first.run)
        return self._known_folds[key]


@dataclass(slots=True, kw_only=True)
class _BlockTask:
    """What happens inside one block, in the order in which the walk asks for it."""

    walk: BlockWalk
    index: int
    linears: Mapping[str, nn.Module]
    quantizers: Mapping[str, BaseQuantizer[Any]]
    solved: dict[str, SolvedLinear] = field(default_factory=dict)
    folding: Folding | None = None
    _seconds: dict[str, float] = field(default_factory=dict)
    _source_of: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)
    _uses: Counter[tuple[str, ...]] = field(default_factory=Counter)
    _prepared: WeakKeyDictionary[Accumulator, dict[BaseQuantizer[Any], Any]] = field(default_factory=WeakKeyDictionary)
    _last_beat: float = field(default_factory=time.perf_counter)

    def batch_run(self, block: nn.Module, batch: BlockBatch) -> BatchRun:
        def run(states: Callable[[], torch.Tensor]) -> torch.Tensor:
            self._stop_if_asked()
            with span(Work.FORWARD):
                return batch.arguments.call(block, states())

        hidden = batch.hidden
        return BatchRun(
            run=partial(run, lambda: hidden.quantized),
            token_mask=batch.token_mask,
            run_float=partial(run, hidden.float_states) if hidden.has_float_path else None,
        )

    def share(self, sets: InputSets, shared: Mapping[int, int]) -> None:
        """Takes note of the sets that an earlier one's statistics serve, see Conduct."""
        self._source_of = {sets[rank]: sets[first] for rank, first in shared.items()}
        self._uses = Counter(self._source_of.get(names, names) for names in sets)

    def make_collector(self, in_features: int, device: torch.device) -> Accumulator:
        return (HeldOutAccumulator if self.walk.quantizer.holds_out else HessianAccumulator)(in_features, device)

    def solve_set(self, names: tuple[str, ...], collector: Accumulator | None) -> None:
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
            return_free_pages()

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
            self._stop_if_asked()
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
        on_event = self.walk.on_event
        on_event(linear_event(self.index, name, solved, self._seconds[name]))
        # Experts are many: their warnings stay in the report, where one sentence for each block sums them up.
        for message in () if NUMBERED_EXPERT.search(f".{name}") else solved.warnings:
            on_event(WarningRaised(code="linear", message=message, block=self.index, linear=name))
        self._advanced()

    def _beat(self) -> None:
        self._stop_if_asked()
        now = time.perf_counter()
        if now - self._last_beat > SECONDS_BETWEEN_BEATS:
            self._last_beat = now
            self._advanced()

    def _advanced(self) -> None:
        done, total = len(self.solved), len(self.linears)
        self.walk.on_event(StageAdvanced(stage=Stage.QUANTIZING, done=done, total=total))

    def _stop_if_asked(self) -> None:
        if self.walk.should_stop():
            raise RunStoppedError(self.index)
