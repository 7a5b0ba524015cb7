"""Takes one block's batches through it on every device, and lets each input set be solved once, from the sums of all.

Devices go from set to set together. At each, every one hands over what its batches added up; the first adds the others'
to its own, in their order, so that the same run comes to the same sums; the set is solved there, and its weights go to
all. With one device there is nothing to add and nobody to send to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import nn

from core.model.activations import HiddenStates, Keep
from core.model.input_sets import InputSets
from core.model.passes import BatchRun
from core.model.structure import in_features, linear_weight, set_linear_weight
from core.model.suspend import Collects, Conduct, SuspendedBlock, collect_without_suspending
from core.quantizers.team import Team


class Reduces(Collects, Protocol):
    """Collects, and takes what another has collected."""

    def take(self, other: Self) -> None:
        """Adds another's sums, wherever they lie, to its own."""


Collector = TypeVar("Collector", bound=Reduces)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One device's part: its linears, the batches that it got, and how they pass.

    streams: linears that write into the residual stream, with the module whose input that stream is. block: see
    `SuspendedBlock`.
    """

    linears: Mapping[str, nn.Module]
    runs: Sequence[BatchRun]
    conduct: Conduct
    streams: Mapping[str, nn.Module]
    block: nn.Module | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Passing(Generic[Collector]):
    """One block's pass. parts: of the devices that got batches, the first one's first.

    solve_set solves a set from its collector (None: no token reached it) and writes the first device's weights.
    meanwhile: asked where the first device waits for others; may raise.
    """

    team: Team
    parts: Sequence[Part]
    input_sets: InputSets
    make_collector: Callable[[int, torch.device], Collector]
    solve_set: Callable[[tuple[str, ...], Collector | None], None]
    meanwhile: Callable[[], None] = lambda: None

    def suspended(self) -> list[HiddenStates]:
        """Solves each set on inputs that carry the sets before it; returns what leaves, in the order of the batches.

        Returns nothing where the conduct says that outputs are not needed.
        """
        return _SuspendedPassing(self).run()

    def unsuspended(self) -> list[HiddenStates]:
        """Solves every set on the inputs of the unchanged block (`true_sequential` off); returns as `suspended`."""
        found = self.each(
            [
                partial(collect_without_suspending, part.linears, self.input_sets, self.make_collector, part.runs)
                for part in self.parts
            ]
        )
        for names in self.input_sets:
            self.solve_set(names, self.reduced(names, [collectors.pop(names, None) for collectors, _ in found]))
        if not self.parts[0].conduct.outputs:
            return []

        def leave(number: int) -> list[HiddenStates]:
            for names in self.input_sets:
                self.send(names, number)
            part, (_, beside) = self.parts[number], found[number]
            return [
                kept(part.conduct.keep, run.run(), float_states)
                for run, float_states in zip(part.runs, beside, strict=True)
            ]

        return _joined(self.each([partial(leave, number) for number in range(len(self.parts))]))

    def each(self, jobs: Sequence[Callable[[], Result]]) -> list[Result]:
        """Does one job per device."""
        return self.team.each(jobs, self.meanwhile)

    def reduced(self, names: tuple[str, ...], collectors: Sequence[Collector | None]) -> Collector | None:
        """Returns the sum of what the devices collected, in their order, on the first."""
        total, *others = collectors
        for other in others:
            if other is not None:
                first = self.parts[0].linears[names[0]]
                if total is None:
                    total = self.make_collector(in_features(first), linear_weight(first).device)
                total.take(other)
        return total

    def send(self, names: tuple[str, ...], number: int) -> None:
        """Gives a device the weights that the first has."""
        first, part = self.parts[0], self.parts[number]
        if part is not first:
            for name in names:
                set_linear_weight(part.linears[name], linear_weight(first.linears[name]))


class _SuspendedPassing(Generic[Collector]):
    """The state of one pass: a suspended block per device, and the collectors that sets to come will need again."""

    def __init__(self, passing: Passing[Collector]) -> None:
        self._passing = passing
        self._conduct = passing.parts[0].conduct
        self._blocks = [
            SuspendedBlock(part.linears, passing.input_sets, passing.make_collector, part.streams, part.block)
            for part in passing.parts
        ]
        self._collectors: dict[int, Collector | None] = {}
        self._open = {*range(len(passing.input_sets))}

    def run(self) -> list[HiddenStates]:
        try:
            waiting = self._passing.each(
                [
                    partial(block.begin, part.runs, part.conduct)
                    for block, part in zip(self._blocks, self._passing.parts, strict=True)
                ]
            )
            while (rank := min((at for at in waiting if at is not None), default=None)) is not None:
                self._solve(rank)
                if not self._conduct.outputs and not self._open:
                    return []
                waiting = self._passing.each(
                    [partial(self._go_on, number, rank) for number in range(len(self._blocks))]
                )
            for rank in sorted(self._open):
                self._solve(rank)
            return _joined([block.left() for block in self._blocks]) if self._conduct.outputs else []
        finally:
            self._passing.team.each([block.end for block in self._blocks])

    def _go_on(self, number: int, rank: int) -> int | None:
        self._passing.send(self._passing.input_sets[rank], number)
        return self._blocks[number].go_on(rank)

    def _solve(self, rank: int) -> None:
        passing, shared = self._passing, self._conduct.shared
        names, source = passing.input_sets[rank], shared.get(rank, rank)
        self._open.discard(rank)
        sums = passing.reduced(names, passing.each([partial(block.hand_over, rank) for block in self._blocks]))
        if source == rank:
            self._collectors[rank] = sums
        sums = self._collectors.get(source)
        if not any(shared.get(later) == source for later in self._open):
            self._collectors.pop(source, None)
        passing.solve_set(names, sums)


def kept(keep: Keep, quantized: torch.Tensor, float_path: torch.Tensor | None) -> HiddenStates:
    """Puts away what left a block."""
    return HiddenStates(quantized=keep(quantized), float_path=None if float_path is None else keep(float_path))


def _joined(parts: Sequence[Sequence[Result]]) -> list[Result]:
    return [one for part in parts for one in part]
