"""What a run is asked for, checked on a model's headers: as given, or under a budget. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.budget.request import BudgetRequest, check_budget
from core.configs import DEFAULT_FORMATS, BudgetConfig, CalibrationConfig, Format, QuantizationConfig
from core.preflight.checks import check_config

if TYPE_CHECKING:
    from core.preflight.source import ModelFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """The options of one run. calibration: None where the method takes none. budget: None where config is final."""

    config: QuantizationConfig
    calibration: CalibrationConfig | None
    budget: BudgetConfig | None = None
    targets: tuple[str, ...] = ()
    formats: tuple[Format, ...] = DEFAULT_FORMATS

    @property
    def plan_request(self) -> BudgetRequest | None:
        """Returns what a plan is made for; None without a budget."""
        if self.budget is None:
            return None
        return BudgetRequest(config=self.config, budget=self.budget, targets=self.targets, formats=self.formats)

    def check(self, facts: ModelFacts) -> tuple[QuantizationConfig, list[str]]:
        """Returns a config as large as the one that will run, and warnings; raises as `check_config` and budgets do."""
        if (wanted := self.plan_request) is not None:
            return check_budget(wanted, facts, self.calibration)
        return self.config, check_config(self.config, facts, self.targets, self.calibration, self.formats)
