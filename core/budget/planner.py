"""From a size to a config: measures every grid on every linear of the float model, then lets the knapsack choose.

It writes nothing but scratch files; quantizing with the config that comes out is the pipeline's affair.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from core.budget.allocation import Allocation, Choice, Point, allocate, allocate_alike, curve
from core.budget.losses import GridLoss, grid_losses, input_metric
from core.budget.patterns import planned_config
from core.budget.plan import BudgetPlan, CurvePoint, PlannedUnit
from core.budget.request import BudgetRequest, one_grid_only
from core.budget.sensitivity import BlockSensitivity, Sweep
from core.budget.units import BudgetTask, Unit, shared_grids
from core.calibration.windows import CalibrationWindows
from core.checkpoint.identity import model_sha256
from core.checkpoint.reader import CheckpointReader
from core.configs import QuantizationConfig
from core.environment import forward_dtype
from core.errors import InvalidConfigError, RunStoppedError, TargetRefusedError
from core.events import Event, Stage, StageAdvanced
from core.model.skeleton import Skeleton
from core.model.structure import linear_weight
from core.preflight.checks import check_config
from core.preflight.rules import Grid
from core.preflight.source import ModelFacts, inspect_source

CURVE_POINTS = 64

Losses = Mapping[str, Sequence[GridLoss]]
"""Stored name of a linear to its loss on each grid of its unit."""


def plan_budget(
    source_dir: Path,
    request: BudgetRequest,
    calibration: CalibrationWindows,
    *,
    scratch_dir: Path | None = None,
    on_event: Callable[[Event], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> BudgetPlan:
    """Returns the plan; the same for the same model, text and request on one kind of machine.

    scratch_dir: where hidden states of the windows lie meanwhile; None is the system's place for such files.
    Raises InvalidConfigError where nothing fits the budget, TargetRefusedError where no fitting choice loads in a
    target, NumericalError, RunStoppedError.
    """
    started = time.perf_counter()
    facts = inspect_source(source_dir)
    task = request.task(facts)
    tokens_NT = calibration.tokens_NT[: request.budget.windows]
    with tempfile.TemporaryDirectory(prefix="budget-", dir=scratch_dir) as scratch:
        losses = _measure(source_dir, task, request, tokens_NT, Path(scratch), _Steps(on_event, should_stop))
    choices = [[_choice(unit, number, losses, task) for number in range(len(unit.grids))] for unit in task.units]
    chosen = _choose(task, choices, request, facts)
    return BudgetPlan(
        key=request.key(model_sha256(source_dir), calibration.sha256),
        config=chosen.config,
        limit_bytes=task.limit_bytes,
        quantized_bytes=chosen.allocation.size + task.fixed_bytes,
        bits=task.bits(chosen.allocation.size),
        divergence=chosen.allocation.cost,
        units=tuple(
            _planned(unit, pick, choices[number][pick], losses)
            for number, (unit, pick) in enumerate(zip(task.units, chosen.allocation.picks, strict=True))
        ),
        curve=tuple(CurvePoint(bits=task.bits(p.size), divergence=p.cost) for p in _thinned(curve(choices))),
        uniform=tuple(_uniform(task, choices)),
        mixed=chosen.mixed,
        tokens=tokens_NT.numel(),
        seconds=time.perf_counter() - started,
        warnings=chosen.warnings,
    )


class _Steps:
    """Tells how far the sweep is, and stops it."""

    def __init__(self, on_event: Callable[[Event], None], should_stop: Callable[[], bool]) -> None:
        self._on_event = on_event
        self._should_stop = should_stop
        self._done = 0
        self.total = 0

    def advance(self) -> None:
        if self._should_stop():
            raise RunStoppedError(blocks_done=0)
        self._done += 1
        self._on_event(StageAdvanced(stage=Stage.CALIBRATING, done=self._done, total=self.total))


def _measure(
    source_dir: Path, task: BudgetTask, request: BudgetRequest, tokens_NT: torch.Tensor, scratch: Path, steps: _Steps
) -> Losses:
    grids = {name: unit.grids for unit in task.units for name in unit.shapes}
    losses: dict[str, Sequence[GridLoss]] = {}
    with torch.no_grad(), CheckpointReader(source_dir) as reader:
        skeleton = Skeleton.open(source_dir, reader, forward_dtype(inspect_source(source_dir).dtype))
        sweep = Sweep(skeleton=skeleton, source=reader, tokens_NT=tokens_NT, scratch=scratch, advance=steps.advance)
        steps.total = sweep.steps
        for block in sweep.blocks():
            losses |= _block_losses(block, skeleton, grids, request.config)
    return losses


def _block_losses(
    block: BlockSensitivity, skeleton: Skeleton, grids: Mapping[str, Sequence[Grid]], config: QuantizationConfig
) -> Losses:
    found: dict[str, Sequence[GridLoss]] = {}
    path = skeleton.blocks.path(block.index)
    for names in block.sets:
        stored = {name: skeleton.names.source_of[f"{path}.{name}.weight"].removesuffix(".weight") for name in names}
        open_names = [name for name in names if stored[name] in grids]
        if not open_names:
            continue
        metric = input_metric(block.hessian_II[names[0]], config)
        for name in open_names:
            weight_OI = linear_weight(block.linears[name])
            found[stored[name]] = grid_losses(weight_OI, metric, block.row_weight_O[name], grids[stored[name]], config)
    return found


def _choice(unit: Unit, number: int, losses: Losses, task: BudgetTask) -> Choice:
    cost = sum(losses[name][number].weighed for name in unit.shapes)
    return Choice(size=unit.size(unit.grids[number], task.layout), cost=cost)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    allocation: Allocation
    config: QuantizationConfig
    mixed: bool
    warnings: tuple[str, ...]


def _choose(
    task: BudgetTask, choices: Sequence[Sequence[Choice]], request: BudgetRequest, facts: ModelFacts
) -> _Chosen:
    """Returns the best mixture, or the best single grid where a target takes no mixture."""
    mixture = allocate(choices, task.room)
    if mixture is None:  # `budget_task` has refused it before
        raise InvalidConfigError("budget.bits", request.budget.bits, "nothing fits", "a larger budget")
    config = _config(task, mixture, request, facts)
    try:
        warnings = check_config(config, facts, request.targets, None, request.formats)
    except TargetRefusedError as refusal:
        return _alike(task, choices, request, facts, refusal)
    return _Chosen(allocation=mixture, config=config, mixed=True, warnings=tuple(warnings))


def _alike(
    task: BudgetTask,
    choices: Sequence[Sequence[Choice]],
    request: BudgetRequest,
    facts: ModelFacts,
    refusal: TargetRefusedError,
) -> _Chosen:
    shared = shared_grids(task)
    options = [[choices[number][unit.grids.index(grid)] for grid in shared] for number, unit in enumerate(task.units)]
    found = allocate_alike(options, task.room) if shared else None
    if found is None or request.config.dynamic:
        raise refusal
    picks = tuple(unit.grids.index(shared[found.picks[0]]) for unit in task.units)
    alike = Allocation(picks=picks, size=found.size, cost=found.cost)
    config = _config(task, alike, request, facts)
    warnings = (one_grid_only(refusal), *check_config(config, facts, request.targets, None, request.formats))
    return _Chosen(allocation=alike, config=config, mixed=False, warnings=warnings)


def _config(task: BudgetTask, allocation: Allocation, request: BudgetRequest, facts: ModelFacts) -> QuantizationConfig:
    grids = [unit.grids[pick] for unit, pick in zip(task.units, allocation.picks, strict=True)]
    return planned_config(request.config, facts.block_prefix, task.units, grids)


def _uniform(task: BudgetTask, choices: Sequence[Sequence[Choice]]) -> list[CurvePoint]:
    """Returns what one grid for all linears would give, by rising size."""
    points = []
    for grid in shared_grids(task):
        picked = [choices[number][unit.grids.index(grid)] for number, unit in enumerate(task.units)]
        size, cost = sum(choice.size for choice in picked), sum(choice.cost for choice in picked)
        points.append(CurvePoint(bits=task.bits(size), divergence=cost, grid=f"{grid.bits} bits, {_size(grid)}"))
    return sorted(points, key=lambda point: point.bits)


def _size(grid: Grid) -> str:
    return "whole rows" if grid.group_size == -1 else f"groups of {grid.group_size}"


def _thinned(points: Sequence[Point]) -> list[Point]:
    """Returns at most CURVE_POINTS of them, both ends included."""
    if len(points) <= CURVE_POINTS:
        return list(points)
    last = len(points) - 1
    return [points[round(number * last / (CURVE_POINTS - 1))] for number in range(CURVE_POINTS)]


def _planned(unit: Unit, pick: int, choice: Choice, losses: Losses) -> PlannedUnit:
    grid = unit.grids[pick]
    relative = [losses[name][pick].relative for name in unit.shapes]
    return PlannedUnit(
        block=unit.block,
        family=unit.family,
        linears=len(unit.shapes),
        weights=unit.weights,
        bits=grid.bits,
        group_size=grid.group_size,
        divergence=choice.cost,
        relative_loss=sum(relative) / len(relative),
    )
