"""Quantizes one block: the walk that the in-memory interface and the disk-to-disk pipeline share.

It runs the block suspended at its input sets, hands each set's statistics to the quantizer, and leaves the block's
linears with their quantized weights, so that everything behind them sees what a loader will compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from core.events import Event
from core.model.activations import HiddenStates
from core.model.capture import CapturedBatch
from core.model.experts import each_expert_reached
from core.model.folds import Folds, discover_folds
from core.model.holding import Spent, discover_spent, held_bytes
from core.model.input_sets import Discovery, InputSets, discover
from core.model.passes import BatchRun
from core.model.residual import discover_streams
from core.model.structure import find_linears, structure_key
from core.model.suspend import Conduct
from core.preflight.architectures import NUMBERED_EXPERT
from core.quantizers.base import BaseQuantizer
from core.quantizers.folding import Folding
from core.quantizers.passing import Part, Passing, kept
from core.quantizers.replica import BlockBatch, Replica, replicas
from core.quantizers.task import Accumulator, BlockTask, SolvedBlock
from core.quantizers.team import Team

Result = TypeVar("Result")


def block_batches(captured: Sequence[CapturedBatch], hidden: Sequence[HiddenStates], index: int) -> list[BlockBatch]:
    """Returns the batches in front of one block from what was captured and the hidden states that enter it."""
    return [
        BlockBatch(hidden=states, arguments=batch.arguments[index], token_mask=batch.token_mask)
        for batch, states in zip(captured, hidden, strict=True)
    ]


@dataclass(slots=True, kw_only=True)
class BlockWalk:
    """Quantizes blocks one after the other; keeps the input sets of blocks that are built alike.

    choose: the quantizer of a linear by block number and name, None where it stays in float; without it, `quantizer`
    for all. should_stop is asked before every batch of the first device and every linear, in the run's own thread.
    team: the devices, and what is kept on each between uses.
    """

    quantizer: BaseQuantizer[Any]
    on_event: Callable[[Event], None]
    should_stop: Callable[[], bool]
    choose: Callable[[int, str], BaseQuantizer[Any] | None] | None = None
    team: Team = field(default_factory=Team)
    _known_sets: dict[object, Discovery] = field(default_factory=dict)
    _known_spent: dict[object, Spent] = field(default_factory=dict)
    _known_held: dict[object, int] = field(default_factory=dict)
    _known_streams: dict[object, dict[str, str]] = field(default_factory=dict)
    _known_folds: dict[object, Folds] = field(default_factory=dict)

    def entering(
        self, states: Sequence[torch.Tensor], floats: Sequence[torch.Tensor] | None = None
    ) -> list[HiddenStates]:
        """Returns what enters the first block. floats: where the float path begins with other states."""
        carried, every = self.quantizer.carries_float_path, self.quantizer.float_path_every
        homes = self.team.homes(len(states))
        put_away = [home.keep(batch) for home, batch in zip(homes, states, strict=True)]
        beside = put_away
        if floats is not None:
            beside = [home.keep(batch) for home, batch in zip(homes, floats, strict=True)]
        return [
            HiddenStates(quantized=batch, float_path=twin.another() if carried and number % every == 0 else None)
            for number, (batch, twin) in enumerate(zip(put_away, beside, strict=True))
        ]

    def quantize(
        self, index: int, block: nn.Module, batches: Sequence[BlockBatch], *, outputs: bool = True
    ) -> SolvedBlock:
        """Quantizes one block in place. Raises RunStoppedError, NumericalError with the linear's name.

        The batches' states are used up where nobody else keeps them: most of a block passes without what entered it.
        outputs: whether what leaves the block is needed; of the last block it mostly is not.
        """
        found = find_linears(block)
        quantizers = self._quantizers(index, found)
        linears = {name: found[name] for name in quantizers}
        task = self._task(index, linears, quantizers)
        if not self.quantizer.needs_calibration or not linears:
            for name in linears:
                task.solve_set((name,), None)
            return task.result(self._pass_unchanged(task, block, batches) if outputs else [])
        owners = replicas(self.team, block, batches, task.stop_if_asked, index)
        passing = self._passing(task, owners, outputs=outputs)
        return task.result(passing.suspended() if self.quantizer.true_sequential else passing.unsuspended())

    def _passing(self, task: BlockTask, owners: Sequence[Replica], *, outputs: bool) -> Passing[Accumulator]:
        """Returns how the block is passed, found out on the first device with the first batch."""
        block, first, linears = owners[0].block, owners[0].runs[0], task.linears
        discovery = self._input_sets(block, linears, first)
        sets, streams, shared = discovery.sets, dict[str, str](), dict[int, int]()
        spent: Spent = {}
        task.folding = Folding(block=block, folds=self._folds(block, task, sets, first), solved=task.solved)
        if self.quantizer.true_sequential:
            streams = self._streams(block, linears, first)
            # What a linear is to make up for in its stream is its own.
            shared = {rank: source for rank, source in discovery.shared.items() if not streams.keys() & {*sets[rank]}}
            task.share(sets, shared)
            spent = self._spent(block, linears, sets, first)
        held = self._held(linears, sets, first, owners[0].hidden[0].numel, spent)
        parts = [
            Part(
                linears=owner.linears(linears),
                runs=owner.runs,
                conduct=Conduct(
                    suspended=owner.admitted(held),
                    keep=owner.station.activations.keep,
                    outputs=outputs,
                    shared=shared,
                    spent=spent,
                ),
                streams={name: owner.block.get_submodule(path) for name, path in streams.items()},
                block=owner.block,
            )
            for owner in owners
        ]
        return Passing(
            team=self.team,
            parts=parts,
            input_sets=sets,
            make_collector=task.make_collector,
            solve_set=task.solve_set,
            meanwhile=task.stop_if_asked,
        )

    def _task(
        self, index: int, linears: Mapping[str, nn.Module], quantizers: Mapping[str, BaseQuantizer[Any]]
    ) -> BlockTask:
        return BlockTask(
            quantizer=self.quantizer,
            on_event=self.on_event,
            should_stop=self.should_stop,
            index=index,
            linears=linears,
            quantizers=quantizers,
        )

    def kept(self, quantized: Sequence[torch.Tensor], floats: Sequence[torch.Tensor | None]) -> list[HiddenStates]:
        """Puts away what left a block, or is to enter one, each batch where it is at home."""
        homes = self.team.homes(len(quantized))
        return [kept(home.keep, states, beside) for home, states, beside in zip(homes, quantized, floats, strict=True)]

    def _pass_unchanged(self, task: BlockTask, block: nn.Module, batches: Sequence[BlockBatch]) -> list[HiddenStates]:
        """Returns what leaves a block none of whose linears waits for statistics."""
        return self._everywhere(
            task,
            block,
            batches,
            lambda owner, run: kept(owner.station.keep, run.run(), None if run.run_float is None else run.run_float()),
        )

    def forward(self, block: nn.Module, batches: Sequence[BlockBatch]) -> list[torch.Tensor]:
        """Runs the quantized path through a block as it is; returns what leaves it. Raises RunStoppedError."""
        return self._everywhere(self._task(0, {}, {}), block, batches, lambda _owner, run: run.run())

    def forward_float(self, block: nn.Module, batches: Sequence[BlockBatch]) -> list[torch.Tensor | None]:
        """Runs the float path through a block as it is; None for batches without one. Raises RunStoppedError."""
        return self._everywhere(
            self._task(0, {}, {}),
            block,
            batches,
            lambda _owner, run: None if run.run_float is None else run.run_float(),
        )

    def _everywhere(
        self,
        task: BlockTask,
        block: nn.Module,
        batches: Sequence[BlockBatch],
        pass_batch: Callable[[Replica, BatchRun], Result],
    ) -> list[Result]:
        """Takes every batch through a block as it is; returns what came of them, in their order."""

        def share(owner: Replica) -> list[Result]:
            return [pass_batch(owner, run) for run in owner.runs]

        owners = replicas(self.team, block, batches, task.stop_if_asked, task.index)
        shares = self.team.each([partial(share, owner) for owner in owners], task.stop_if_asked)
        return [one for of_share in shares for one in of_share]

    def _spent(self, block: nn.Module, linears: Mapping[str, nn.Module], sets: InputSets, first: BatchRun) -> Spent:
        key = structure_key(linears)
        if key not in self._known_spent:
            with each_expert_reached(block):
                self._known_spent[key] = discover_spent(block, linears, sets, first.run)
        return self._known_spent[key]

    def _held(
        self, linears: Mapping[str, nn.Module], sets: InputSets, first: BatchRun, numel: int, spent: Spent
    ) -> float | None:
        """Returns how many bytes a suspended batch holds, at most, per number of its hidden states; None: no matter.

        numel: of the first batch's states.
        """
        if not (self.team.first.activations.is_limited and self.quantizer.true_sequential):
            return None
        key = structure_key(linears)
        if key not in self._known_held:
            # The float path stands one set ahead of the other, which holds no more there than this does at its most.
            self._known_held[key] = max(held_bytes(linears, sets, first.run, spent))
        return self._known_held[key] / max(numel, 1)

    def _quantizers(self, index: int, names: Iterable[str]) -> dict[str, BaseQuantizer[Any]]:
        """Returns the quantizer of every linear that is quantized."""
        if self.choose is None:
            return dict.fromkeys(names, self.quantizer)
        chosen = {name: self.choose(index, name) for name in names}
        return {name: quantizer for name, quantizer in chosen.items() if quantizer is not None}

    def _streams(self, block: nn.Module, linears: Mapping[str, nn.Module], first: BatchRun) -> dict[str, str]:
        """Returns the linears that write into the residual stream, where what it has drifted is to be made up for.

        With each goes the path of the module whose input that stream is.
        """
        if not self.quantizer.follows_stream:
            return {}
        key = structure_key(linears)
        if key not in self._known_streams:
            self._known_streams[key] = discover_streams(block, linears, first.run)
        return self._known_streams[key]

    def _input_sets(self, block: nn.Module, linears: Mapping[str, nn.Module], first: BatchRun) -> Discovery:
        key = structure_key(linears)
        if key not in self._known_sets:
            with each_expert_reached(block):
                self._known_sets[key] = discover(linears, first.run, unbroken=self.quantizer.carries_float_path)
        return self._known_sets[key]

    def _folds(self, block: nn.Module, task: BlockTask, sets: InputSets, first: BatchRun) -> Folds:
        """Returns what can take over channel scales; experts are too many to try each."""
        if not self.quantizer.scales_channels:
            return {}
        key = structure_key(task.linears)
        if key not in self._known_folds:
            plain = {name: module for name, module in task.linears.items() if not NUMBERED_EXPERT.search(f".{name}")}
            tried = tuple(names for names in sets if names[0] in plain)
            self._known_folds[key] = discover_folds(block, plain, tried, first.run)
        return self._known_folds[key]
