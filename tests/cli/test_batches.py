"""`bitmill batches` against a running service, and the sweeps that its options stand for."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cli.batch_view import LinesView, TableView, batch_view
from cli.batches import read_request
from cli.errors import CliError, ExitCode
from cli.sweep import SweepBudgets, SweepOptions
from core.configs import Method, Preset
from core.errors import InvalidConfigError
from tests.cli.conftest import Bitmill

GRID = ("--method", "rtn", "--group-size", "32")
DRAW = {"samples": 4}


def sweep(**values: object) -> SweepOptions:
    """Returns what would have been typed."""
    return SweepOptions(values=values)


def test_each_combination_is_a_config():
    """In the order of the options; a method has its own options alone, and combinations that mean the same are one."""
    options = sweep(
        method=[Method.GPTQ, Method.RTN], preset=[Preset.FAST, Preset.BEST], bits=[4, 3], damp_percent=[0.1]
    )
    configs = options.configs({"evaluate": True}, DRAW)
    gptq = [
        {"method": "gptq", "preset": preset, "bits": bits, "damp_percent": 0.1, "calibration": DRAW, "evaluate": True}
        for preset in ("fast", "best")
        for bits in (4, 3)
    ]
    assert configs == [*gptq, *({"method": "rtn", "bits": bits, "evaluate": True} for bits in (4, 3))]


def test_nothing_varied_is_one_config():
    assert sweep().configs({}, {}) == [{"method": "gptq"}]
    assert sweep(sym=False).configs({}, DRAW) == [{"method": "gptq", "sym": False, "calibration": DRAW}]


def test_each_budget_is_a_config_of_those_that_calibrate():
    """One without calibration is there once, without a budget; alone it keeps the budget, to be refused for it."""
    budgets = SweepBudgets(values={"budget_bits": [3.5, 4.0], "budget_windows": [2]}).budgets()
    assert budgets == [{"bits": 3.5, "windows": 2}, {"bits": 4.0, "windows": 2}]
    configs = sweep(method=[Method.GPTQ, Method.RTN]).configs({}, {}, budgets)
    assert configs == [*({"method": "gptq", "budget": budget} for budget in budgets), {"method": "rtn"}]
    assert sweep(method=[Method.RTN]).configs({}, {}, budgets[:1]) == [{"method": "rtn", "budget": budgets[0]}]
    assert SweepBudgets().budgets() == []
    with pytest.raises(InvalidConfigError, match="no limit"):
        SweepBudgets(values={"budget_windows": [2]}).budgets()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"method": [Method.RTN], "damp_percent": [0.1]}, "damp_percent"),
        ({"method": [Method.RTN], "preset": [Preset.FAST]}, "preset"),
        ({"bits": [4, 5]}, "bits"),
        ({"method": [Method.RTN, Method.AWQ], "desc_act": True}, "desc_act"),
    ],
)
def test_what_no_chosen_method_takes_is_refused(values: Mapping[str, Any], field: str):
    with pytest.raises(InvalidConfigError) as caught:
        sweep(**values).configs({}, {})
    assert caught.value.field == field


@pytest.fixture(scope="module")
def finished(at_service: Bitmill, models: Path) -> dict[str, Any]:
    """A batch of two jobs, submitted and followed by one command."""
    model = ("--model", str(models / "tiny"), "--label", "study=sweep", "--name", "widths")
    done = at_service("batches", "submit", *model, *GRID, "--bits", "8", "--bits", "4", "--wait", "--json")
    assert done.returncode == ExitCode.OK, done.stderr
    batch: dict[str, Any] = json.loads(done.stdout)
    return batch


def test_submit_and_wait_ends_with_every_job(finished: dict[str, Any], at_service: Bitmill):
    """The answer is the whole table, and each job carries the labels."""
    assert finished["states"] == {"succeeded": 2}
    assert [(row["method"], row["bits"], row["group_size"]) for row in finished["table"]] == [
        ("rtn", 8, 32),
        ("rtn", 4, 32),
    ]
    listed = json.loads(at_service("jobs", "list", "--label", "study=sweep", "--json").stdout)["jobs"]
    assert {job["id"] for job in listed} == {row["job_id"] for row in finished["table"]}


def test_batches_are_listed_and_shown(finished: dict[str, Any], at_service: Bitmill):
    """As a line for a batch, and a line for each of its jobs; `--json` is what the service says."""
    listed = at_service("batches", "list", "--limit", "5").stdout.splitlines()
    assert any(line.split()[0] == finished["id"] and "2 succeeded" in line and "widths" in line for line in listed[1:])
    assert finished["id"] in {
        one["id"] for one in json.loads(at_service("batches", "list", "--json").stdout)["batches"]
    }
    shown = at_service("batches", "show", finished["id"])
    assert shown.returncode == ExitCode.OK, shown.stderr
    lines = shown.stdout.splitlines()[1:]
    for line, row, words in zip(lines, finished["table"], ("rtn w8 g32", "rtn w4 g32"), strict=True):
        assert row["job_id"] in line
        assert words in line
        assert "succeeded" in line
    assert json.loads(at_service("batches", "show", finished["id"], "--json").stdout)["id"] == finished["id"]


def test_a_watch_of_what_is_over_compares_it(finished: dict[str, Any], at_service: Bitmill):
    """Each job's state was said on stderr; stdout has the jobs and the table of `compare`."""
    watched = at_service("batches", "watch", finished["id"])
    assert watched.returncode == ExitCode.OK, watched.stderr
    for row in finished["table"]:
        assert f"{row['job_id']}  succeeded" in watched.stderr
        assert watched.stdout.count(row["job_id"]) == 2
    assert "PERPLEXITY" in watched.stdout
    absent = at_service("batches", "watch", "batch_0199b2c4d5e67f0190a1b2c3d4e5f607")
    assert absent.returncode == ExitCode.REFUSED


def test_a_request_comes_from_a_file(at_service: Bitmill, tmp_path: Path):
    """Whatever the service takes, budgets and needs among it; a watch ends with the code of a cancelled job."""
    needs = {"memory_bytes": 10**15}
    model = {"source": "path", "root": "models", "path": "tiny"}
    request = {"name": "other", "models": [model], "configs": [{"method": "rtn", "group_size": 32, "needs": needs}]}
    (file := tmp_path / "batch.json").write_text(json.dumps(request))
    submitted = at_service("batches", "submit", str(file), "--name", "waits")
    assert submitted.returncode == ExitCode.OK, submitted.stderr
    batch_id = submitted.stdout.strip()
    batch = json.loads(at_service("batches", "show", batch_id, "--json").stdout)
    assert (batch["name"], batch["states"]) == ("waits", {"queued": 1})
    assert at_service("jobs", "cancel", batch["table"][0]["job_id"]).returncode == ExitCode.OK
    assert at_service("batches", "watch", batch_id).returncode == ExitCode.CANCELLED


def test_a_batch_has_budgets_and_limits_of_its_jobs(at_service: Bitmill, models: Path):
    """As `jobs submit` takes them."""
    asked = ("--budget-bits", "5.4", "--budget-bits", "6", "--budget-windows", "2", "--priority", "-3")
    model = ("--model", str(models / "tiny"), "--group-size", "32")
    done = at_service("batches", "submit", *model, *asked, "--deadline", "600", "--json")
    assert done.returncode == ExitCode.OK, done.stderr
    jobs = [row["job_id"] for row in json.loads(done.stdout)["table"]]
    for job, bits in zip(jobs, (5.4, 6), strict=True):
        shown = json.loads(at_service("jobs", "get", job, "--json").stdout)
        assert (shown["spec"]["budget"]["bits"], shown["spec"]["budget"]["windows"]) == (bits, 2)
        assert (shown["priority"], shown["deadline_s"]) == (-3, 600)
        at_service("jobs", "cancel", job)
        at_service("jobs", "watch", job)  # until it is over


def test_what_cannot_run_is_named_and_nothing_is_stored(at_service: Bitmill, models: Path):
    """With the place of each config that stands in the way."""
    before = json.loads(at_service("batches", "list", "--json").stdout)
    sizes = ("--group-size", "32", "--group-size", "24")
    done = at_service("batches", "submit", "--model", str(models / "tiny"), "--method", "rtn", *sizes)
    assert done.returncode == ExitCode.USAGE, done.stdout
    assert "1 of 2 jobs cannot run" in done.stderr
    assert "(models/0, configs/1)" in done.stderr
    assert json.loads(at_service("batches", "list", "--json").stdout) == before


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((), "--model"),
        (("--bits", "4"), "--model"),
        (("batch.json", "--bits", "4"), "FILE"),
        (("absent.json",), "FILE"),
        (("--model", "a/b", "--label", "none"), "--label"),
        (("batch.json", "--priority", "0"), "FILE"),
        (("batch.json", "--budget-bits", "4"), "FILE"),
        (("--model", "a/b", "--budget-bits", "99"), "budget.bits"),
    ],
)
def test_a_wrong_command_says_so_before_anything_is_sent(local: Bitmill, arguments: tuple[str, ...], field: str):
    """No service is needed for that."""
    done = local("batches", "submit", *arguments, "--json")
    assert done.returncode == ExitCode.USAGE
    assert json.loads(done.stderr)["error"]["field"] == field


def test_standard_input_is_a_file_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", StringIO('{"models": []}'))
    assert read_request("-") == {"models": []}
    monkeypatch.setattr(sys, "stdin", StringIO("[]"))
    with pytest.raises(CliError, match="no JSON object"):
        read_request("-")


def answer(*states: str) -> dict[str, Any]:
    """Returns a batch as the service would."""
    config = {"method": "rtn", "bits": 4, "group_size": 32, "sym": True}
    rows = [
        {"job_id": f"job_{at}", "state": state, "error": "disk_full" if state == "failed" else None, "fraction": 0.5}
        | {"model": "tiny", "config": config, "artifact_bytes": None, "seconds": None}
        for at, state in enumerate(states)
    ]
    return {"table": rows, "states": {state: states.count(state) for state in states}}


def test_lines_tell_each_change_once():
    """A log gets a line for each state that a job comes to, and not one for every answer."""
    console = Console(file=StringIO(), width=200)
    with batch_view(console) as view:
        assert isinstance(view, LinesView)
        for states in (("running", "queued"), ("running", "queued"), ("failed", "running")):
            view.show(answer(*states))
        view.complain("No answer.")
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]  # it is the StringIO above
        "A  job_0  running  tiny  rtn w4 g32",
        "B  job_1  queued  tiny  rtn w4 g32",
        "A  job_0  failed: disk_full  tiny  rtn w4 g32",
        "B  job_1  running  tiny  rtn w4 g32",
        "No answer.",
    ]


def test_a_terminal_gets_the_table():
    """With a line that sums it up."""
    console = Console(file=StringIO(), width=200, force_terminal=True)
    with batch_view(console) as view:
        assert isinstance(view, TableView)
        view.show(answer("running", "queued", "queued"))
    drawn = console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO above
    assert "job_2" in drawn
    assert "2 queued, 1 running" in drawn
