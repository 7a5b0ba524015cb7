"""`bitmill hub-token`, `jobs keep` and `jobs publish` against a running service."""

from __future__ import annotations

import json
import subprocess

from cli.errors import ExitCode
from tests.cli.conftest import Bitmill
from tests.ops.service import BITMILL, RunningService, environment


def test_a_token_comes_by_standard_input_and_is_forgotten(service: RunningService, at_service: Bitmill):
    """Without a line there is nothing to store."""

    def pipe(text: str) -> subprocess.CompletedProcess[str]:
        variables = environment(BITMILL_URL=service.url)
        command = [*BITMILL, "hub-token", "--json"]
        return subprocess.run(
            command, input=text, env=variables, capture_output=True, text=True, timeout=60, check=False
        )

    stored = pipe("hf_secret\n")
    assert json.loads(stored.stdout)["stored"] is True
    assert "hf_secret" not in stored.stdout
    assert pipe("").returncode == ExitCode.USAGE
    assert json.loads(at_service("hub-token", "--forget", "--json").stdout) == {"stored": False}


def test_files_are_kept_and_a_publication_needs_a_result(at_service: Bitmill):
    """A pin shows in the job; a job that has no files is refused."""
    job = json.loads(at_service("jobs", "submit", "--model", "acme/nowhere", "--method", "rtn", "--json").stdout)["id"]
    assert "pinned" in at_service("jobs", "keep", job, "--pin").stdout
    kept = json.loads(at_service("jobs", "keep", job, "--no-pin", "--until", "2030-01-01T00:00:00Z", "--json").stdout)
    assert (kept["pinned"], kept["expires_at"]) == (False, "2030-01-01T00:00:00Z")
    assert at_service("jobs", "keep", job, "--until", "tomorrow").returncode == ExitCode.USAGE
    assert at_service("jobs", "publish", job, "acme/result").returncode == ExitCode.REFUSED
    at_service("jobs", "cancel", job)
