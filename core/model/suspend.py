"""Runs one block over all batches in a single forward pass, suspended in front of each input set.

An input set is a group of linears fed by the very same tensor (q, k and v; gate and up). Every batch runs the block in
a coroutine of its own. A hook on each set's first linear suspends the batch, and the set's collector gets its inputs.
When every batch is suspended or done, the earliest set that any batch waits at is to be solved, its linears get their
quantized weights, and its batches go on: each batch passes the block once, and still every set sees inputs that already
carry all quantized linears before it. Sets are discovered by a probing forward, never listed. Who asks for these steps
is `core.quantizers.passing`.

Batches that may not stay suspended, for the memory that they would hold, run the block anew for every set. A set's
inputs are added up in the order of the batches in any case, so that the sums are the same bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import torch
from torch import nn

from core.model.activations import HiddenStates, InMemory, Keep
from core.model.experts import aligned_inputs
from core.model.holding import Spent, entering_hook
from core.model.input_sets import InputSets, input_hooks
from core.model.passes import BatchPass, BatchRun, RecordedPass, SuspendedPass
from core.model.structure import in_features, linear_weight
from core.profile import Profile, Work, active, span


class Adds(Protocol):
    """Takes the inputs of one batch and input set."""

    def add(
        self,
        X: torch.Tensor,
        token_mask: torch.Tensor | None = None,
        float_X: torch.Tensor | None = None,
        drift: torch.Tensor | None = None,
    ) -> None:
        """Takes inputs [..., I], and the float model's inputs of the same tokens where it runs along.

        drift [..., O]: float minus quantized stream that the set's one linear adds its output to, where there is one.
        """


class Collects(Protocol):
    """Takes the inputs of one input set, batch by batch."""

    def of_batch(self, number: int) -> Adds:
        """Returns what takes the inputs of the batch with that number."""


Collector = TypeVar("Collector", bound=Collects)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conduct:
    """How a block is passed. suspended: batches that may stay suspended, the first ones; None for all.

    keep: where activations are put away. outputs: whether what leaves the block is needed. shared: sets, by number,
    with the number of the earlier set that is fed by the same tensor: its collector serves both. spent: what a batch
    lets go of where it arrives, see `core.model.holding`.
    """

    suspended: int | None = None
    keep: Keep = InMemory
    outputs: bool = True
    shared: Mapping[int, int] = field(default_factory=dict)
    spent: Spent = field(default_factory=dict)


class SuspendedBlock(Generic[Collector]):
    """One block's pass over batches, step by step: `begin`, then for one set after the other `hand_over` and `go_on`.

    Every step is to be made by the same thread, since a coroutine stays in the one that made it; `end` is the last.
    """

    def __init__(
        self,
        linears: Mapping[str, nn.Module],
        input_sets: InputSets,
        make_collector: Callable[[int, torch.device], Collector],
        streams: Mapping[str, nn.Module] | None = None,
        block: nn.Module | None = None,
    ) -> None:
        """streams: linears that write into the residual stream, with the module whose input that stream is.

        block: given where what enters it is let go once it is spent.
        """
        self._linears = linears
        self._input_sets = input_sets
        self._rank = {names[0]: rank for rank, names in enumerate(input_sets)}
        self._make_collector = make_collector
        self._streams = streams or {}
        self._block = block
        self._conduct = Conduct()
        self._collectors: dict[int, Collector] = {}
        self._solved: set[int] = set()
        self._passes: list[BatchPass] = []
        self._profile: Profile | None = None
        self._current: SuspendedPass | RecordedPass | None = None
        self._hooks = ExitStack()

    def begin(self, batches: Sequence[BatchRun], conduct: Conduct) -> int | None:
        """Takes every batch to its first set; returns the earliest that one waits at, None where all have left."""
        self._conduct = conduct
        suspended = len(batches) if conduct.suspended is None else conduct.suspended
        self._passes = [
            BatchPass(batch, replayed=number >= suspended, keep=conduct.keep, spent=conduct.spent)
            for number, batch in enumerate(batches)
        ]
        if self._block is not None:
            self._hooks.enter_context(entering_hook(self._block, self._enter))
        self._hooks.enter_context(input_hooks(self._linears, self._arrive))
        self._hooks.enter_context(input_hooks(self._streams, self._note_stream))
        for run in self._passes:
            self._advance_with_float_path(run)
        return self._earliest()

    def hand_over(self, rank: int) -> Collector | None:
        """Returns what collected the set's inputs; None where none came, or where an earlier set's are the same.

        From here on no batch waits at it any more.
        """
        for run in self._waiting(rank):
            if not run.collected:
                self._collect(run, rank)
        self._solved.add(rank)
        return self._collectors.pop(rank, None)

    def go_on(self, rank: int) -> int | None:
        """Takes the batches that wait at a set, which has its new weights now, to their next; returns as `begin`."""
        for run in self._waiting(rank):
            self._advance_with_float_path(run)
        return self._earliest()

    def left(self) -> list[HiddenStates]:
        """Returns what has left the block, in the order of the batches."""
        return [run.left() for run in self._passes]

    def end(self) -> None:
        """Takes the hooks off the block and lets go of every batch, wherever it stands."""
        self._hooks.close()
        self._passes, self._current = [], None
        self._collectors.clear()

    def _waiting(self, rank: int) -> list[BatchPass]:
        return [run for run in self._passes if run.rank == rank]

    def _earliest(self) -> int | None:
        return min((run.rank for run in self._passes if run.rank is not None), default=None)

    def _advance_with_float_path(self, run: BatchPass) -> None:
        """Takes one batch to its next set, and its float path past that one.

        So the float path passes every linear with the weights that this still has. A router may lead it to sets that
        the batch does not reach, and past sets that the batch does.
        """
        if run.beside is not None and not run.beside.started:
            self._advance(run.beside)
        run.collected = False
        self._advance(run.main)
        self._advance_float_path(run, lambda rank: run.rank is None or rank < run.rank)
        if run.rank is not None and self._is_next(run, run.rank):
            self._collect(run, run.rank)
        run.put_away(self._conduct.keep)

    def _is_next(self, run: BatchPass, rank: int) -> bool:
        """Whether every batch before this one has had its inputs of the set collected, or will bring none.

        Else the set's inputs wait until it is solved: routers lead batches past different sets.
        """
        for earlier in self._passes:
            if earlier is run:
                return True
            if earlier.rank is not None and (earlier.rank < rank or (earlier.rank == rank and not earlier.collected)):
                return False
        return True

    def _advance_float_path(self, run: BatchPass, behind: Callable[[int], bool]) -> None:
        while run.beside is not None and run.beside.rank is not None and behind(run.beside.rank):
            self._advance(run.beside)

    def _collect(self, run: BatchPass, rank: int) -> None:
        """Adds one batch's inputs, lets go of them, and takes the float path past the set."""
        X = run.main.inputs
        if X is not None and rank not in self._conduct.shared:
            self._add(run, rank, X)
        run.collected, run.main.inputs = True, None
        self._advance_float_path(run, lambda at: at == rank)

    def _add(self, run: BatchPass, rank: int, X: torch.Tensor) -> None:
        if rank not in self._collectors:
            first = self._linears[self._input_sets[rank][0]]
            self._collectors[rank] = self._make_collector(in_features(first), X.device)
        collector = self._collectors[rank].of_batch(run.number)
        float_X, drift = run.float_inputs(rank), run.drift(self._input_sets[rank])
        with span(Work.HESSIAN):
            if drift is not None and float_X is not None and float_X.shape == X.shape:
                collector.add(X, run.token_mask, float_X, drift)
            else:
                for part in aligned_inputs(X, run.token_mask, float_X):
                    collector.add(*part)

    def _advance(self, run: SuspendedPass | RecordedPass) -> None:
        self._current, self._profile = run, active()
        with span(Work.FORWARD):
            run.advance()

    def _enter(self, hidden: torch.Tensor) -> None:
        if self._current is not None:
            self._current.enter(hidden)

    def _arrive(self, name: str, X: torch.Tensor) -> None:
        count_linear(self._profile, self._linears[name], X)
        rank, run = self._rank.get(name), self._current
        if rank is not None and rank not in self._solved and run is not None:
            run.arrive(rank, X)

    def _note_stream(self, linear: str, stream: torch.Tensor) -> None:
        if self._current is not None:
            self._current.note_stream(linear, stream)


def collect_without_suspending(
    linears: Mapping[str, nn.Module],
    input_sets: InputSets,
    make_collector: Callable[[int, torch.device], Collector],
    batches: Sequence[BatchRun],
) -> tuple[dict[tuple[str, ...], Collector], list[torch.Tensor | None]]:
    """Runs every batch through the unchanged block (`true_sequential` off).

    Returns each reached set's collector, and what left the block on the float path.
    """
    sets = {names[0]: names for names in input_sets}
    collectors: dict[tuple[str, ...], Collector] = {}
    float_inputs: dict[str, torch.Tensor] = {}
    float_outputs: list[torch.Tensor | None] = []
    mask: torch.Tensor | None = None
    number = 0

    def note_float(name: str, X: torch.Tensor) -> None:
        count_linear(active(), linears[name], X)
        if name in sets:
            float_inputs[name] = X

    def note(name: str, X: torch.Tensor) -> None:
        count_linear(active(), linears[name], X)
        names = sets.get(name)
        if names is None:
            return
        if names not in collectors:
            collectors[names] = make_collector(in_features(linears[name]), X.device)
        with span(Work.HESSIAN):
            for part in aligned_inputs(X, mask, float_inputs.pop(name, None)):
                collectors[names].of_batch(number).add(*part)

    for batch in batches:
        mask, number = batch.token_mask, batch.number
        with input_hooks(linears, note_float):
            float_outputs.append(None if batch.run_float is None else batch.run_float())
        with input_hooks(linears, note):
            batch.run()
        float_inputs.clear()
    return collectors, float_outputs


def count_linear(profile: Profile | None, linear: nn.Module, X: torch.Tensor) -> None:
    """Counts the product of inputs with a linear's weight."""
    if profile is not None:
        operations = 2.0 * X.numel() * linear_weight(linear).shape[0]
        profile.count(Work.FORWARD, operations=operations, dtype=str(X.dtype).removeprefix("torch."))
