"""`bitmill run` under a budget: the plan is shown, the artifact is as small as asked, and what cannot be is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from cli.budget_view import CHOSEN, curve_picture, plan_line, plan_table
from cli.errors import ExitCode
from cli.job_text import method_text
from tests.api.test_budget import PLAN
from tests.cli.conftest import Bitmill

SMALL = ("--samples", "4", "--seq-len", "64")


def test_run_chooses_under_the_budget(local: Bitmill, models: Path, tmp_path: Path):
    """No group size has to be given; the curve stands on stderr, the result on stdout."""
    options = (*SMALL, "--budget-bits", "5.4", "--budget-windows", "2", "--json")
    done = local("run", "--src", str(models / "tiny"), "--dst", str(tmp_path / "out"), *options)
    assert done.returncode == ExitCode.OK, done.stderr
    summary = json.loads(done.stdout)
    assert summary["bits_per_weight"] <= 5.4
    assert summary["config"]["dynamic"]
    assert CHOSEN in done.stderr
    assert not (tmp_path / "out.work").exists()


def test_a_budget_below_everything_is_refused(local: Bitmill, models: Path, tmp_path: Path):
    """Before any work, with the least that is possible."""
    done = local("run", "--src", str(models / "tiny"), "--dst", str(tmp_path / "out"), *SMALL, "--budget-bits", "1")
    assert done.returncode == ExitCode.USAGE
    assert "budget.bits" in done.stderr
    assert "bits from" in done.stderr


def test_the_picture_holds_what_it_names():
    """Each kind of point is drawn; one point alone is drawn too."""
    console = Console(width=100, record=True, force_terminal=False)
    console.print(plan_line(PLAN), plan_table(PLAN), curve_picture(PLAN))
    text = console.export_text()
    assert "3.500 bits per weight" in text
    assert text.count(CHOSEN) == 2
    assert "100.0%" in text


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        (None, "gptq w4 g64"),
        ({"bits": 3.5, "bytes": 0}, "gptq under 3.5 bits"),
        ({"bits": 0.0, "bytes": 90_000_000}, "gptq under 90.0 MB"),
        ({"bits": 4.0, "bytes": 90_000_000}, "gptq under 4 bits and 90.0 MB"),
    ],
)
def test_a_job_under_a_budget_is_called_by_it(budget: dict[str, object] | None, text: str):
    """And not by bits and a group size, which are not used then."""
    spec = {"method": "gptq", "bits": 4, "group_size": 64, "sym": True, **({"budget": budget} if budget else {})}
    assert method_text(spec) == text
