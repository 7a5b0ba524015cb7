"""Runs one block over all batches in a single forward pass, suspended in front of each input set.

An input set is a group of linears fed by the very same tensor (q, k and v; gate and up). Every batch runs the block in
a coroutine of its own. A hook on each set's first linear suspends the batch, and the set's collector gets its inputs.
When every batch is suspended or done, the earliest set that any batch waits at is solved, its linears get their
quantized weights, and its batches go on: each batch passes the block once, and still every set sees inputs that already
carry all quantized linears before it. Sets are discovered by a probing forward, never listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import greenlet
import torch
from torch import nn

from core.model.experts import aligned_inputs
from core.model.structure import in_features, linear_weight
from core.profile import Profile, Work, active, span


class Collects(Protocol):
    """Takes the inputs of one input set, batch by batch."""

    def add(
        self,
        X: torch.Tensor,
        token_mask: torch.Tensor | None = None,
        float_X: torch.Tensor | None = None,
        drift: torch.Tensor | None = None,
    ) -> None:
        """Takes one batch's inputs [..., I], and the float model's inputs of the same tokens where it runs along.

        drift [..., O]: float minus quantized stream that the set's one linear adds its output to, where there is one.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRun:
    """One batch's pass: `run` calls the block and returns its output; token_mask is False at padding.

    run_float: the same on the float model's hidden states; it passes every linear before that gets its new weights.
    """

    run: Callable[[], torch.Tensor]
    token_mask: torch.Tensor | None
    run_float: Callable[[], torch.Tensor] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HiddenStates:
    """One batch's hidden states [B, T, hidden] between two blocks.

    quantized: behind the quantized blocks so far. float_path: behind the same blocks in float; None where not carried.
    """

    quantized: torch.Tensor
    float_path: torch.Tensor | None = None


InputSets = tuple[tuple[str, ...], ...]
Collector = TypeVar("Collector", bound=Collects)


def discover_input_sets(
    linears: Mapping[str, nn.Module], run: Callable[[], torch.Tensor], *, unbroken: bool = False
) -> InputSets:
    """Runs the block once and groups its linears by the tensor that feeds them, in order of arrival.

    A linear that is not reached, or reached more than once, is a set of its own. unbroken: a set ends where a linear
    of another one comes in between, as where attention and feed-forward run side by side. A float path that is carried
    along needs that: it has to be past all of a set when the set is solved.
    """
    arrivals: dict[str, list[tuple[Any, ...]]] = {name: [] for name in linears}
    kept_alive: list[torch.Tensor] = []
    order: list[str] = []

    def note(name: str, X: torch.Tensor) -> None:
        kept_alive.append(X)  # a freed tensor's address could be taken by another one
        if not arrivals[name]:
            order.append(name)
        arrivals[name].append((X.data_ptr(), tuple(X.shape), X.stride()))

    with _input_hooks(linears, note):
        run()
    groups: dict[object, list[str]] = {}
    before: object = None
    for name in order:
        key: object = arrivals[name][0] if len(arrivals[name]) == 1 else name
        if unbroken and key in groups and key != before:
            groups[object()] = groups.pop(key)
        groups.setdefault(key, []).append(name)
        before = key
    sets = sorted(groups.values(), key=lambda names: order.index(names[0]))
    unreached = [(name,) for name, seen in arrivals.items() if not seen]
    return (*(tuple(names) for names in sets), *unreached)


class SuspendedBlock(Generic[Collector]):
    """One block's pass over all batches."""

    def __init__(
        self,
        linears: Mapping[str, nn.Module],
        input_sets: InputSets,
        make_collector: Callable[[int, torch.device], Collector],
        solve_set: Callable[[tuple[str, ...], Collector | None], None],
        streams: Mapping[str, nn.Module] | None = None,
    ) -> None:
        """solve_set solves a set from its collector (None: no token reached it) and writes its linears' weights.

        streams: linears that write into the residual stream, with the module whose input that stream is.
        """
        self._linears = linears
        self._input_sets = input_sets
        self._rank = {names[0]: rank for rank, names in enumerate(input_sets)}
        self._make_collector = make_collector
        self._solve_set = solve_set
        self._streams = streams or {}
        self._collectors: dict[int, Collector] = {}
        self._solved: set[int] = set()
        self._driver = greenlet.getcurrent()
        self._profile = active()
        self._current: _Pass | None = None

    def run(self, batches: Sequence[BatchRun]) -> list[HiddenStates]:
        """Passes every batch through the block, solving each set on the way; returns the outputs in batch order."""
        passes = [_Pass(batch) for batch in batches]
        with _input_hooks(self._linears, self._arrive), _input_hooks(self._streams, self._note_stream):
            for run in passes:
                self._advance_with_float_path(run)
            while waiting := [run for run in passes if run.rank is not None]:
                earliest = min(run.rank for run in waiting if run.rank is not None)
                self._solve(earliest)
                for run in waiting:
                    if run.rank == earliest:
                        self._advance_with_float_path(run)
        for rank in range(len(self._input_sets)):
            if rank not in self._solved:
                self._solve(rank)
        return [run.result() for run in passes]

    def _advance_with_float_path(self, run: _Pass) -> None:
        """Takes one batch to its next set, and its float path past that one.

        So the float path passes every linear with the weights that this still has. A router may lead it to sets that
        the batch does not reach, and past sets that the batch does.
        """
        if run.beside is not None and not run.started:
            self._advance(run.beside)
        self._advance(run)
        self._advance_float_path(run, lambda rank: run.rank is None or rank < run.rank)
        if run.rank is not None:
            self._collect(run, run.rank)
            self._advance_float_path(run, lambda rank: rank == run.rank)

    def _advance_float_path(self, run: _Pass, behind: Callable[[int], bool]) -> None:
        while run.beside is not None and run.beside.rank is not None and behind(run.beside.rank):
            self._advance(run.beside)

    def _collect(self, run: _Pass, rank: int) -> None:
        X, float_X = run.inputs, run.float_inputs(rank)
        if X is None:
            return
        if rank not in self._collectors:
            first = self._linears[self._input_sets[rank][0]]
            self._collectors[rank] = self._make_collector(in_features(first), X.device)
        drift = run.drift(self._input_sets[rank])
        with span(Work.HESSIAN):
            if drift is not None and float_X is not None and float_X.shape == X.shape:
                self._collectors[rank].add(X, run.token_mask, float_X, drift)
            else:
                for part in aligned_inputs(X, run.token_mask, float_X):
                    self._collectors[rank].add(*part)
        run.inputs = None

    def _advance(self, run: _Pass) -> None:
        self._current = run
        with span(Work.FORWARD):
            run.advance()

    def _arrive(self, name: str, X: torch.Tensor) -> None:
        count_linear(self._profile, self._linears[name], X)
        rank, run = self._rank.get(name), self._current
        if rank is None or rank in self._solved or run is None:
            return
        run.inputs = X
        self._driver.switch(rank)

    def _note_stream(self, linear: str, stream: torch.Tensor) -> None:
        if self._current is not None:
            self._current.streams[linear] = stream

    def _solve(self, rank: int) -> None:
        self._solved.add(rank)
        self._solve_set(self._input_sets[rank], self._collectors.pop(rank, None))


class _Pass:
    """One suspended run of the block. rank: the set that it waits at; None before the start and after the end."""

    def __init__(self, batch: BatchRun, *, is_float: bool = False) -> None:
        self.token_mask = batch.token_mask
        self.is_float = is_float
        self.rank: int | None = None
        self.started = False
        self.inputs: torch.Tensor | None = None
        self.streams: dict[str, torch.Tensor] = {}
        self.beside = None if is_float or batch.run_float is None else _Pass(batch, is_float=True)
        self.output: torch.Tensor | None = None
        self._greenlet = greenlet.greenlet(batch.run_float if is_float else batch.run)

    def advance(self) -> None:
        self.started, self.inputs = True, None
        answer = self._greenlet.switch()
        if self._greenlet.dead:
            self.rank, self.output = None, answer
        else:
            self.rank = answer

    def float_inputs(self, rank: int) -> torch.Tensor | None:
        """Returns the float path's inputs where it waits at the same set; a router may have led it elsewhere."""
        return self.beside.inputs if self.beside is not None and self.beside.rank == rank else None

    def drift(self, names: tuple[str, ...]) -> torch.Tensor | None:
        """Returns float minus quantized stream in front of a set of one linear; None without both."""
        own = self.streams.pop(names[0], None) if len(names) == 1 else None
        beside = self.beside.streams.pop(names[0], None) if own is not None and self.beside is not None else None
        return None if own is None or beside is None else (beside.float() - own.float()).to(own.dtype)

    def result(self) -> HiddenStates:
        assert self.output is not None  # noqa: S101 - every pass runs to its end
        return HiddenStates(quantized=self.output, float_path=None if self.beside is None else self.beside.output)


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
                collectors[names].add(*part)

    for batch in batches:
        mask = batch.token_mask
        with _input_hooks(linears, note_float):
            float_outputs.append(None if batch.run_float is None else batch.run_float())
        with _input_hooks(linears, note):
            batch.run()
        float_inputs.clear()
    return collectors, float_outputs


def count_linear(profile: Profile | None, linear: nn.Module, X: torch.Tensor) -> None:
    """Counts the product of inputs with a linear's weight."""
    if profile is not None:
        operations = 2.0 * X.numel() * linear_weight(linear).shape[0]
        profile.count(Work.FORWARD, operations=operations, dtype=str(X.dtype).removeprefix("torch."))


@contextmanager
def _input_hooks(linears: Mapping[str, nn.Module], note: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    def hook_for(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _module, args: note(name, args[0])

    handles = [module.register_forward_pre_hook(hook_for(name)) for name, module in linears.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
