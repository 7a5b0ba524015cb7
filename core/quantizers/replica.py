"""A block on each device of a run, with the batches that are dealt to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from core.model.activations import HiddenStates
from core.model.capture import BlockArguments
from core.model.passes import BatchRun
from core.model.structure import find_linears
from core.profile import Work, span
from core.quantizers.team import Station, Team


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockBatch:
    """One calibration batch in front of a block: its hidden states and the block's other arguments."""

    hidden: HiddenStates
    arguments: BlockArguments
    token_mask: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One device's block, the run's own on the first, and its batches, in their order.

    hidden: the states that they are called with, which stay where they are kept.
    """

    station: Station
    block: nn.Module
    runs: Sequence[BatchRun]
    hidden: Sequence[HiddenStates]

    def linears(self, names: Mapping[str, object]) -> dict[str, nn.Module]:
        """Returns this device's linears of those names."""
        found = find_linears(self.block)
        return {name: found[name] for name in names}

    def admitted(self, held: float | None) -> int | None:
        """Returns how many of the batches may stay suspended, the first ones; None for all.

        held: the bytes that one holds there per number of its hidden states; None without a limit.
        """
        if held is None:
            return None
        return self.station.activations.admit(
            [round(held * states.numel * (1 + states.has_float_path)) for states in self.hidden]
        )


def replicas(
    team: Team, block: nn.Module, batches: Sequence[BlockBatch], stop_if_asked: Callable[[], None], index: int
) -> list[Replica]:
    """Returns the block on every device that gets batches, the first one's first.

    stop_if_asked: asked before every batch of the first device, which then ends the others'.
    """
    shares = team.shares(len(batches))
    blocks = team.each([partial(station.own, block) for station, _ in shares], stop_if_asked)
    found = []
    for (station, numbers), own in zip(shares, blocks, strict=True):
        check = stop_if_asked if station is team.first else partial(team.stop_if_ending, index)
        found.append(_replica(station, own, {number: batches[number] for number in numbers}, check))
    return found


def _replica(
    station: Station, block: nn.Module, batches: Mapping[int, BlockBatch], check: Callable[[], None]
) -> Replica:
    def run(arguments: BlockArguments, states: Callable[[], torch.Tensor]) -> torch.Tensor:
        check()
        with span(Work.FORWARD):
            return arguments.call(block, states())

    runs = []
    for number, batch in batches.items():
        arguments, hidden = station.arguments(batch.arguments), batch.hidden
        runs.append(
            BatchRun(
                run=partial(run, arguments, partial(getattr, hidden, "quantized")),
                token_mask=None if batch.token_mask is None else station.place(batch.token_mask),
                run_float=partial(run, arguments, hidden.take_float_states) if hidden.has_float_path else None,
                run_last=partial(run, arguments, hidden.take_quantized),
                number=number,
            )
        )
    return Replica(station=station, block=block, runs=runs, hidden=[batch.hidden for batch in batches.values()])
