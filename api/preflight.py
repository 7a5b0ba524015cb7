"""What can be said of a request's options on a model of which only headers were read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from core.budget.run import RunRequest
from core.calibration.hub import SELF_SET
from core.configs import BudgetConfig, parse_formats
from core.preflight.resources import Estimate, estimate, generation_bytes

if TYPE_CHECKING:
    from api.schemas.requests import JobOptions
    from core.configs import CalibrationConfig, QuantizationConfig
    from core.preflight.rates import MachineRates
    from core.preflight.source import ModelFacts


def budget_config(options: JobOptions) -> BudgetConfig | None:
    """Returns the checked budget, None without one; raises InvalidConfigError naming the field."""
    return None if options.budget is None else BudgetConfig.from_dict(options.budget.model_dump())


def check_options(
    options: JobOptions,
    config: QuantizationConfig,
    calibration: CalibrationConfig | None,
    facts: ModelFacts,
    rates: MachineRates | None = None,
) -> tuple[list[str], Estimate]:
    """Returns warnings and what a run needs; raises an error of core where it cannot run on this model.

    rates: of the machine; None where they are not known, and no time is told.
    """
    request = RunRequest(
        config=config,
        calibration=calibration,
        budget=budget_config(options),
        targets=tuple(options.targets),
        formats=parse_formats(options.formats),
    )
    config, warnings = request.check(facts)
    needed = estimate(facts, config, calibration, request.formats, rates=rates)
    if calibration is not None and options.calibration.set == SELF_SET:
        needed = replace(needed, ram_bytes=max(needed.ram_bytes, generation_bytes(facts)))
    return warnings, needed
