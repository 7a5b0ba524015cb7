"""What a budget is asked for, and what can be said of it from a model's headers alone. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.budget.allocation import Choice, allocate, allocate_alike
from core.budget.patterns import planned_config
from core.budget.plan import plan_key
from core.budget.units import BudgetTask, budget_task, shared_grids
from core.configs import DEFAULT_FORMATS, BudgetConfig, CalibrationConfig, Format, QuantizationConfig
from core.errors import InvalidConfigError, TargetRefusedError
from core.preflight.checks import check_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.preflight.source import ModelFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRequest:
    """What a plan is made for. formats: the first one's size counts. targets: loaders that must take the artifact."""

    config: QuantizationConfig
    budget: BudgetConfig
    targets: tuple[str, ...] = ()
    formats: tuple[Format, ...] = DEFAULT_FORMATS

    def key(self, model_sha256: str, calibration_sha256: str) -> str:
        """Returns what `BudgetPlan.key` says of a plan for this request on this model and text."""
        return plan_key(
            model=model_sha256,
            calibration=calibration_sha256,
            config=self.config.to_dict(),
            budget=self.budget.to_dict(),
            targets=sorted(self.targets),
            formats=list(self.formats),
        )

    def task(self, facts: ModelFacts) -> BudgetTask:
        """Returns what is to be chosen; raises InvalidConfigError where the method or the size cannot be."""
        if not self.config.needs_calibration:
            reason = "a budget is measured on calibration text, which it does not take"
            raise InvalidConfigError("method", str(self.config.method), reason, "gptq, or no budget")
        return budget_task(self.config, self.budget, facts, self.targets, self.formats)


def check_budget(
    request: BudgetRequest, facts: ModelFacts, calibration: CalibrationConfig | None
) -> tuple[QuantizationConfig, list[str]]:
    """Returns a config as large as the one that will be chosen, and warnings; raises as `check_config` and `task`.

    Losses are not known here, so the config says only how much memory and disk a run needs.
    """
    task = request.task(facts)
    by_size = [[_filling(unit.size(grid, task.layout)) for grid in unit.grids] for unit in task.units]
    mixture = allocate(by_size, task.room)
    if mixture is None:  # the task is refused where the smallest choices do not fit
        raise InvalidConfigError("budget.bits", request.budget.bits, "nothing fits", "a larger budget")
    grids = [unit.grids[pick] for unit, pick in zip(task.units, mixture.picks, strict=True)]
    config = planned_config(request.config, facts.block_prefix, task.units, grids)
    try:
        return config, check_config(config, facts, request.targets, calibration, request.formats)
    except TargetRefusedError as refusal:
        return _check_alike(request, task, facts, calibration, refusal)


def _check_alike(
    request: BudgetRequest,
    task: BudgetTask,
    facts: ModelFacts,
    calibration: CalibrationConfig | None,
    refusal: TargetRefusedError,
) -> tuple[QuantizationConfig, list[str]]:
    shared = shared_grids(task)
    sizes: Sequence[Sequence[Choice]] = [
        [_filling(unit.size(grid, task.layout)) for grid in shared] for unit in task.units
    ]
    found = allocate_alike(sizes, task.room) if shared else None
    if found is None or request.config.dynamic:
        raise refusal
    grids = [shared[found.picks[0]]] * len(task.units)
    config = planned_config(request.config, facts.block_prefix, task.units, grids)
    warnings = check_config(config, facts, request.targets, calibration, request.formats)
    return config, [one_grid_only(refusal), *warnings]


def one_grid_only(refusal: TargetRefusedError) -> str:
    """Returns what is said where a target takes no mixture."""
    return f"{refusal.target} loads one grid for all linears only ({refusal.reason}): the best such grid is chosen."


def _filling(size: int) -> Choice:
    """Returns a choice that is the better the larger it is: what fills a budget."""
    return Choice(size=size, cost=-float(size))
