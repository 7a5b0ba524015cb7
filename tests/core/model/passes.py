"""Passes batches through a block of a test on one device, solving each set as the test says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from core.model.activations import HiddenStates
from core.model.input_sets import InputSets
from core.model.passes import BatchRun
from core.model.suspend import Conduct
from core.quantizers.passing import Collector, Part, Passing
from core.quantizers.team import Team
from core.solver.hessian import HessianAccumulator


def suspended(
    linears: Mapping[str, nn.Module],
    sets: InputSets,
    solve_set: Callable[[tuple[str, ...], Collector | None], None],
    runs: Sequence[BatchRun],
    *,
    conduct: Conduct | None = None,
    streams: Mapping[str, nn.Module] | None = None,
    block: nn.Module | None = None,
    make_collector: Callable[[int, torch.device], Collector] = HessianAccumulator,  # type: ignore[assignment]
) -> list[HiddenStates]:
    """Returns what leaves the block, in the order of the batches."""
    part = Part(linears=linears, runs=runs, conduct=conduct or Conduct(), streams=streams or {}, block=block)
    passing = Passing(team=Team(), parts=[part], input_sets=sets, make_collector=make_collector, solve_set=solve_set)
    return passing.suspended()
