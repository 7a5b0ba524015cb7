"""The child's steps before the engine that need a tokenizer: drawing calibration windows, planning under a budget.

It brings core's parts together; every number comes from core.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.budget.plan import BudgetPlan
from core.budget.planner import plan_budget
from core.budget.request import BudgetRequest
from core.calibration.lint import lint
from core.calibration.texts import read_documents
from core.calibration.windows import CalibrationWindows, draw_windows
from core.checkpoint.identity import model_sha256
from core.configs import CalibrationConfig
from core.evaluation.loading import load_tokenizer
from core.evaluation.self_text import SelfText, write_self_text
from core.events import Event, Stage, StageAdvanced


def draw(text: Path, model_dir: Path, config: CalibrationConfig, *, look: bool) -> CalibrationWindows:
    """Returns the job's calibration windows; raises CalibrationRefusedError where the text has too few tokens.

    look: whether what a look over the text finds becomes the windows' warnings.
    """
    documents = list(read_documents(text))
    windows = draw_windows(documents, load_tokenizer(model_dir), config)
    return replace(windows, warnings=lint(documents).warnings) if look else windows


def write_text(model_dir: Path, config: CalibrationConfig, out: Path, on_event: Callable[[Event], None]) -> None:
    """Lets the float model write the text of a draw, unless it lies there; on_event may raise to stop."""

    def advance(done: int, total: int) -> None:
        on_event(StageAdvanced(stage=Stage.CALIBRATING, done=done, total=total))

    write_self_text(model_dir, SelfText.for_draw(config), out, advance=advance)


def plan_under(
    request: BudgetRequest,
    model_dir: Path,
    calibration: CalibrationWindows,
    earlier: dict[str, Any] | None,
    scratch_dir: Path,
    on_event: Callable[[Event], None],
) -> BudgetPlan:
    """Returns the plan under a budget: an earlier attempt's where it was made for the same run, else a new one.

    on_event is told of every step and may raise to stop.
    """
    if earlier is not None:
        plan = BudgetPlan.from_dict(earlier)
        if plan.key == request.key(model_sha256(model_dir), calibration.sha256):
            return plan
    return plan_budget(model_dir, request, calibration, scratch_dir=scratch_dir, on_event=on_event)
