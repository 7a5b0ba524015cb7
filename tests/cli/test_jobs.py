"""`bitmill jobs` against a running service: what is printed, what is fetched, which exit code says what."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from cli.client import ServiceClient
from cli.download import RemoteFile, fetch_all
from cli.errors import ExitCode
from cli.settings import ClientSettings
from tests.cli.conftest import Bitmill
from tests.ops.service import RunningService, run_bitmill

SMALL = ("--group-size", "32", "--samples", "4", "--seq-len", "64")
FORMATS = ("--format", "gptq", "--format", "compressed-tensors")
DYNAMIC = {r"-:.*\.o_proj": {}, r"+:.*\.down_proj": {"bits": 8}}


@pytest.fixture(scope="module")
def finished(at_service: Bitmill, models: Path) -> dict[str, Any]:
    """A succeeded job, submitted and followed by one command."""
    options = (*SMALL, *FORMATS, "--dynamic", json.dumps(DYNAMIC), "--label", "team=search")
    done = at_service("jobs", "submit", "--model", str(models / "tiny"), *options, "--wait", "--json")
    assert done.returncode == ExitCode.OK, done.stderr
    job: dict[str, Any] = json.loads(done.stdout)
    return job


def test_submit_and_wait_ends_with_the_job(finished: dict[str, Any]):
    """The printed job is succeeded and shows the model by root and name, never by its path."""
    assert finished["state"] == "succeeded"
    assert finished["spec"]["model"] == {"source": "path", "root": "models", "path": "tiny"}
    assert finished["spec"]["group_size"] == 32
    assert finished["spec"]["formats"] == ["gptq", "compressed-tensors"]
    assert list(finished["spec"]["dynamic"].items()) == list(DYNAMIC.items())
    assert finished["labels"] == {"team": "search"}


def test_list_filters_and_get_shows_the_job(at_service: Bitmill, finished: dict[str, Any]):
    """A filter that matches shows the job, one that does not shows none; the table is one line per job."""
    listed = at_service("jobs", "list", "--label", "team=search", "--state", "succeeded")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["ID", finished["id"]]
    assert json.loads(at_service("jobs", "list", "--label", "team=other", "--json").stdout) == {"jobs": []}
    shown = at_service("jobs", "get", finished["id"])
    assert "models:tiny" in shown.stdout
    assert "succeeded" in shown.stdout


def test_download_verifies_and_keeps_what_is_complete(at_service: Bitmill, finished: dict[str, Any], tmp_path: Path):
    """Every file of SHA256SUMS is there with its hash; a second download fetches nothing and says the same."""
    folder = tmp_path / "artifact"
    first = at_service("jobs", "download", finished["id"], "--dst", str(folder))
    assert first.returncode == ExitCode.OK, first.stderr
    sums = (folder / "SHA256SUMS").read_text().split()
    assert all(
        hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
        for digest, name in zip(sums[::2], sums[1::2], strict=True)
    )
    assert "compressed-tensors/model.safetensors" in sums
    assert json.loads((folder / "quantize_config.json").read_text())["dynamic"] == DYNAMIC
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    second = at_service("jobs", "download", finished["id"], "--dst", str(folder))
    assert second.stdout == first.stdout
    assert times == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.fixture
def weights(service: RunningService, finished: dict[str, Any]) -> RemoteFile:
    """The weights of the finished job, as the service lists them."""
    with ServiceClient(ClientSettings(url=service.url, api_key=None)) as client:
        listed = client.get(f"/v1/jobs/{finished['id']}/artifacts")["data"]
    (file,) = [RemoteFile.from_json(values) for values in listed if values["name"] == "model.safetensors"]
    return file


def test_a_broken_off_download_goes_on_where_it_stood(service: RunningService, weights: RemoteFile, tmp_path: Path):
    """Only the missing bytes are asked for, and the whole has the right hash."""
    with ServiceClient(ClientSettings(url=service.url, api_key=None)) as client:
        fetch_all(client, [weights], tmp_path, lambda _: None)
        whole = (tmp_path / weights.name).read_bytes()
        (tmp_path / weights.name).unlink()
        (tmp_path / f"{weights.name}.part").write_bytes(whole[:1000])
        counts: list[int] = []
        fetch_all(client, [weights], tmp_path, counts.append)
    assert counts[0] == 1000
    assert sum(counts) == weights.size_bytes
    assert (tmp_path / weights.name).read_bytes() == whole


def test_a_damaged_part_is_found_and_removed(
    at_service: Bitmill, finished: dict[str, Any], weights: RemoteFile, tmp_path: Path
):
    """Wrong bytes end in exit code 1 and do not stay; the same command then succeeds."""
    (tmp_path / f"{weights.name}.part").write_bytes(b"wrong bytes")
    damaged = at_service("jobs", "download", finished["id"], "--dst", str(tmp_path))
    assert damaged.returncode == ExitCode.FAILED
    assert f"{weights.name} arrived damaged and was removed" in damaged.stderr
    assert not list(tmp_path.glob("*.part"))
    assert at_service("jobs", "download", finished["id"], "--dst", str(tmp_path)).returncode == ExitCode.OK


def test_a_job_that_fails_says_why_and_exits_with_1(at_service: Bitmill, models: Path, tmp_path: Path):
    """A text that is too short is found by the worker; the message counts the tokens and names the remedy."""
    text = tmp_path / "short.txt"
    text.write_text("One short line.\nAnother short line.\n")
    done = at_service("jobs", "submit", "--model", str(models / "tiny"), *SMALL, "--calib", str(text), "--wait")
    assert done.returncode == ExitCode.FAILED
    assert "tokens" in done.stdout
    assert "samples" in done.stdout


def test_a_cancelled_job_exits_with_5(at_service: Bitmill, models: Path):
    """Whoever watches a job that another one cancels learns it from the exit code."""
    many = ("--group-size", "32", "--samples", "64", "--seq-len", "256", "--deadline", "3600")
    job_id = at_service("jobs", "submit", "--model", str(models / "tiny"), *many).stdout.strip()
    assert json.loads(at_service("jobs", "get", job_id, "--json").stdout)["deadline_s"] == 3600
    assert at_service("jobs", "cancel", job_id).returncode == ExitCode.OK
    assert at_service("jobs", "watch", job_id).returncode == ExitCode.CANCELLED
    without = at_service("jobs", "download", job_id, "--dst", "never")
    assert without.returncode == ExitCode.REFUSED
    assert "has no artifact" in without.stderr


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (("--bits", "5"), "bits"),
        (("--group-size", "48"), "group_size"),
        (("--damp-percent", "2"), "damp_percent"),
        (("--deadline", "0"), "deadline_s"),
    ],
)
def test_a_refused_option_is_named_with_what_is_allowed(
    at_service: Bitmill, models: Path, options: tuple[str, str], field: str
):
    """Exit code 2, the field and its remedy on stderr, nothing on stdout."""
    done = at_service("jobs", "submit", "--model", str(models / "tiny"), *options)
    assert done.returncode == ExitCode.USAGE
    assert field in done.stderr
    assert "fix:" in done.stderr
    assert done.stdout == ""


def test_a_model_outside_of_the_roots_is_refused(at_service: Bitmill, tmp_path: Path):
    """A path that the service may not read is refused, whether anything is there or not."""
    done = at_service("jobs", "submit", "--model", str(tmp_path), "--json")
    error = json.loads(done.stderr)["error"]
    assert done.returncode == error["exit_code"] == ExitCode.USAGE
    assert error["field"].startswith("model")


def test_an_unknown_job_is_refused(at_service: Bitmill):
    """Exit code 4: the service answered, and said no."""
    done = at_service("jobs", "get", f"job_{'0' * 32}")
    assert done.returncode == ExitCode.REFUSED
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("url", "code"), [("http://127.0.0.1:9", ExitCode.UNAVAILABLE), ("127.0.0.1:8080", ExitCode.USAGE)]
)
def test_a_service_that_is_not_there_is_named(url: str, code: ExitCode):
    """An address without a service, and what is no address, are told apart; both name the option to correct."""
    done = run_bitmill("jobs", "list", "--url", url)
    assert done.returncode == code
    assert url in done.stderr
    assert "--url" in done.stderr
