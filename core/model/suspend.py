"""Runs one block over all batches in a single forward pass, suspended in front of each input set.

An input set is a group of linears fed by the very same tensor (q, k and v; gate and up). Every batch runs the block in
a coroutine of its own. A hook on each set's first linear hands the batch's inputs to the set's collector and suspends
the batch. When every batch is suspended or done, the earliest set that any batch waits at is solved, its linears get
their quantized weights, and its batches go on: each batch passes the block once, and still every set sees inputs that
already carry all quantized linears before it. Sets are discovered by a probing forward, never listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import greenlet
import torch
from torch import nn

from core.model.structure import in_features


class Collects(Protocol):
    """Takes the inputs of one input set, batch by batch."""

    def add(self, X: torch.Tensor, token_mask: torch.Tensor | None = None) -> None:
        """Takes one batch's inputs [..., I]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRun:
    """One batch's pass: `run` calls the block and returns its output; token_mask is False at padding."""

    run: Callable[[], torch.Tensor]
    token_mask: torch.Tensor | None


InputSets = tuple[tuple[str, ...], ...]
Collector = TypeVar("Collector", bound=Collects)


def discover_input_sets(linears: Mapping[str, nn.Module], run: Callable[[], torch.Tensor]) -> InputSets:
    """Runs the block once and groups its linears by the tensor that feeds them, in order of arrival.

    A linear that is not reached, or reached more than once, is a set of its own.
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
    for name in order:
        key: object = arrivals[name][0] if len(arrivals[name]) == 1 else name
        groups.setdefault(key, []).append(name)
    unreached = [(name,) for name, seen in arrivals.items() if not seen]
    return (*(tuple(group) for group in groups.values()), *unreached)


class SuspendedBlock(Generic[Collector]):
    """One block's pass over all batches."""

    def __init__(
        self,
        linears: Mapping[str, nn.Module],
        input_sets: InputSets,
        make_collector: Callable[[int, torch.device], Collector],
        solve_set: Callable[[tuple[str, ...], Collector | None], None],
    ) -> None:
        """solve_set gets a set's names and its collector (None where no token reached it) and writes the weights."""
        self._linears = linears
        self._input_sets = input_sets
        self._rank = {names[0]: rank for rank, names in enumerate(input_sets)}
        self._make_collector = make_collector
        self._solve_set = solve_set
        self._collectors: dict[int, Collector] = {}
        self._solved: set[int] = set()
        self._driver = greenlet.getcurrent()
        self._current_mask: torch.Tensor | None = None

    def run(self, batches: Sequence[BatchRun]) -> list[torch.Tensor]:
        """Passes every batch through the block, solving each set on the way; returns the outputs in batch order."""
        passes = [greenlet.greenlet(batch.run) for batch in batches]
        waiting: dict[int, int] = {}
        outputs: dict[int, torch.Tensor] = {}

        def advance(index: int) -> None:
            self._current_mask = batches[index].token_mask
            answer = passes[index].switch()
            if passes[index].dead:
                outputs[index] = answer
            else:
                waiting[index] = answer

        with _input_hooks(self._linears, self._arrive):
            for index in range(len(batches)):
                advance(index)
            while waiting:
                earliest = min(waiting.values())
                self._solve(earliest)
                for index in [index for index, rank in waiting.items() if rank == earliest]:
                    del waiting[index]
                    advance(index)
        self._solve_unreached()
        return [outputs[index] for index in range(len(batches))]

    def _arrive(self, name: str, X: torch.Tensor) -> None:
        rank = self._rank.get(name)
        if rank is None or rank in self._solved:
            return
        if rank not in self._collectors:
            self._collectors[rank] = self._make_collector(in_features(self._linears[name]), X.device)
        self._collectors[rank].add(X, self._current_mask)
        self._driver.switch(rank)

    def _solve(self, rank: int) -> None:
        self._solved.add(rank)
        self._solve_set(self._input_sets[rank], self._collectors.pop(rank, None))

    def _solve_unreached(self) -> None:
        for rank in range(len(self._input_sets)):
            if rank not in self._solved:
                self._solve(rank)


def collect_without_suspending(
    linears: Mapping[str, nn.Module],
    input_sets: InputSets,
    make_collector: Callable[[int, torch.device], Collector],
    batches: Sequence[BatchRun],
) -> dict[tuple[str, ...], Collector]:
    """Runs every batch through the unchanged block and returns each reached set's collector (`true_sequential` off)."""
    sets = {names[0]: names for names in input_sets}
    collectors: dict[tuple[str, ...], Collector] = {}
    mask: torch.Tensor | None = None

    def note(name: str, X: torch.Tensor) -> None:
        names = sets.get(name)
        if names is None:
            return
        if names not in collectors:
            collectors[names] = make_collector(in_features(linears[name]), X.device)
        collectors[names].add(X, mask)

    with _input_hooks(linears, note):
        for batch in batches:
            mask = batch.token_mask
            batch.run()
    return collectors


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
