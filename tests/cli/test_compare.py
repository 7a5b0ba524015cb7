"""`bitmill compare` against a running service: jobs and a batch side by side, measured by a real worker."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from io import StringIO
from typing import Any

import httpx
import pytest
from rich.console import Console

from cli.compare import Compared
from cli.compare_table import compare_table, not_measured
from cli.errors import ExitCode
from tests.cli.conftest import Bitmill
from tests.ops.service import RunningService, wait_until

CALIBRATION = {"samples": 4, "seq_len": 64}
UNKNOWN = "job_0199b2c4d5e67f0190a1b2c3d4e5f607"


@pytest.fixture(scope="module")
def batch(service: RunningService) -> str:
    """A finished batch: a measured job at 8 bits, one at 4, and one that was not measured."""
    configs = [
        {"method": "rtn", "bits": 8, "group_size": 32, "evaluate": True},
        {"method": "gptq", "bits": 4, "group_size": 32, "calibration": CALIBRATION, "evaluate": True},
        {"method": "rtn", "bits": 4, "group_size": -1, "sym": False},
    ]
    body = {"models": [{"source": "path", "root": "models", "path": "tiny"}], "configs": configs}
    answer = httpx.post(f"{service.url}/v1/batches", json=body, trust_env=False, timeout=30)
    assert answer.status_code == 202, answer.text
    batch_id: str = answer.json()["id"]

    def over() -> bool:
        found = httpx.get(f"{service.url}/v1/batches/{batch_id}", trust_env=False, timeout=30).json()
        assert "failed" not in found["states"], found
        return bool(found["states"] == {"succeeded": 3})

    wait_until(over, 300)
    return batch_id


@pytest.fixture(scope="module")
def rows(at_service: Bitmill, batch: str) -> list[dict[str, Any]]:
    """The batch's rows as JSON."""
    done = at_service("compare", "--batch", batch, "--json")
    assert done.returncode == ExitCode.OK, done.stderr
    values: list[dict[str, Any]] = json.loads(done.stdout)["jobs"]
    return values


def test_a_batch_is_measured_against_the_float_model(rows: list[dict[str, Any]]):
    """More bits are nearer to the float model by every measure; who was not measured says so."""
    eight, four, unmeasured = rows
    assert [row["method"] for row in rows] == ["rtn", "gptq", "rtn"]
    assert eight["evaluation"]["perplexity_float"] == four["evaluation"]["perplexity_float"] > 1
    assert 0 < eight["evaluation"]["kl_divergence"] < four["evaluation"]["kl_divergence"]
    assert eight["evaluation"]["top1_agreement"] > four["evaluation"]["top1_agreement"]
    assert eight["evaluation"]["bytes_float"] > eight["evaluation"]["bytes_quantized"]
    assert eight["evaluation"]["bytes_quantized"] > four["evaluation"]["bytes_quantized"]
    assert eight["evaluation"]["sample"]["decode"]["tokens_per_second_quantized"] > 0
    assert eight["evaluation"]["nf4"] == four["evaluation"]["nf4"]
    assert unmeasured["evaluation"] is None
    assert unmeasured["artifact_bytes"] > 0


def test_jobs_by_id_say_the_same_as_their_batch(at_service: Bitmill, rows: list[dict[str, Any]]):
    """The table of a batch and its jobs one by one are the same figures; only the model's name has its root."""
    done = at_service("compare", *(row["job_id"] for row in rows), "--json")
    assert done.returncode == ExitCode.OK, done.stderr
    one_by_one = json.loads(done.stdout)["jobs"]
    assert [{**row, "model": "tiny"} for row in one_by_one] == rows


def test_the_table_shows_the_float_model_and_each_job(at_service: Bitmill, batch: str, rows: list[dict[str, Any]]):
    """One line each, with the figures that the JSON has."""
    done = at_service("compare", "--batch", batch)
    lines = done.stdout.splitlines()
    found = rows[1]["evaluation"]
    (float_line,) = [line for line in lines if line.strip().startswith("float")]
    assert f"{found['perplexity_float']:.3f}" in float_line
    (nf4_line,) = [line for line in lines if line.strip().startswith("NF4")]
    nf4 = found["nf4"]
    assert {f"{nf4['perplexity']:.3f}", f"{nf4['kl_divergence']:.5f}", f"{nf4['top1_agreement']:.2%}"} <= {
        *nf4_line.split()
    }
    table, below = lines[: lines.index("")], lines[lines.index("") :]
    (line,) = [line for line in table if line.startswith("B ")]
    assert {"gptq", "w4", "g32", f"{found['kl_divergence']:.5f}", f"{found['top1_agreement']:.2%}"} <= {*line.split()}
    (unmeasured,) = [line for line in table if line.startswith("C ")]
    assert re.search(r"rtn w4 grow asym(\s+-){5}", unmeasured)
    for letter, row in zip("ABC", rows, strict=True):
        assert any(line.split()[:3] == [letter, row["job_id"], "succeeded"] for line in below)
    assert "--evaluate" in lines[-1]


def test_nf4_that_could_not_be_measured_says_what_installs_it(rows: list[dict[str, Any]]):
    """The row stands there without figures, and below it the remedy; one worker that has it is enough."""
    eight, four, _ = (Compared(**row) for row in rows)
    missing = {"missing": "NF4 needs bitsandbytes: install it."}
    without = [replace(row, evaluation={**(row.evaluation or {}), "nf4": missing}) for row in (eight, four)]
    shown = Console(record=True, width=120, file=StringIO())
    shown.print(compare_table(without))
    (line,) = [line for line in shown.export_text().splitlines() if line.strip().startswith("NF4")]
    assert line.split() == ["NF4", *["-"] * 5]
    assert not_measured(without) == [missing["missing"]]
    shown = Console(record=True, width=120, file=StringIO())
    shown.print(compare_table([without[0], four]))
    (line,) = [line for line in shown.export_text().splitlines() if line.strip().startswith("NF4")]
    assert "-" not in line.split()
    assert not_measured([without[0], four]) == []


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        ((), ExitCode.USAGE, "Nothing to compare is named"),
        ((UNKNOWN, "--batch", UNKNOWN), ExitCode.USAGE, "cannot be compared together"),
        ((UNKNOWN, UNKNOWN), ExitCode.USAGE, f"{UNKNOWN} is named twice"),
        ((UNKNOWN,), ExitCode.REFUSED, UNKNOWN),
        (("--batch", UNKNOWN.replace("job", "batch")), ExitCode.REFUSED, UNKNOWN.replace("job", "batch")),
    ],
)
def test_what_cannot_be_compared_is_named(
    at_service: Bitmill, arguments: tuple[str, ...], exit_code: ExitCode, says: str
):
    """The exit code and the message tell why, and nothing goes to stdout."""
    done = at_service("compare", *arguments)
    assert done.returncode == exit_code
    assert says in done.stderr
    assert done.stdout == ""
