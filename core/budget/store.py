"""Keeps a plan beside a run's blocks, so that a run that goes on uses the plan that it was begun with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from core.budget.plan import BudgetPlan
from core.budget.planner import plan_budget
from core.budget.request import BudgetRequest
from core.calibration.windows import CalibrationWindows
from core.checkpoint.durable import replace_file
from core.checkpoint.identity import model_sha256
from core.events import Event

PLAN_FILE: Final = "budget.json"


def plan_once(
    source_dir: Path,
    request: BudgetRequest,
    calibration: CalibrationWindows,
    work_dir: Path,
    *,
    on_event: Callable[[Event], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> BudgetPlan:
    """Returns the work folder's plan where it was made for this request, model and text; else makes it and keeps it."""
    kept = read_plan(work_dir)
    if kept is not None and kept.key == request.key(model_sha256(source_dir), calibration.sha256):
        return kept
    work_dir.mkdir(parents=True, exist_ok=True)
    plan = plan_budget(
        source_dir, request, calibration, scratch_dir=work_dir, on_event=on_event, should_stop=should_stop
    )
    keep_plan(work_dir, plan)
    return plan


def read_plan(work_dir: Path) -> BudgetPlan | None:
    """Returns the plan that lies in the folder; None where none does, or it cannot be read any more."""
    try:
        return BudgetPlan.from_dict(json.loads((work_dir / PLAN_FILE).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep_plan(work_dir: Path, plan: BudgetPlan) -> None:
    """Writes the plan durably."""
    replace_file(work_dir / PLAN_FILE, [json.dumps(plan.to_dict(), allow_nan=False).encode()])
