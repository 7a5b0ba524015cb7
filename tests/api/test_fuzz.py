"""Schemathesis against the real service, from its own OpenAPI document: no 5xx, nothing undocumented, and no finding.

Left out: live streams, which have no end; `positive_data_acceptance`, since what fits the schema may still name a model
or a page that is not there; `ignored_auth`, since loopback needs no key (see test_contract for that).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from api.settings import MEBIBYTE, ApiSettings
from tests.api.service import serve

SEED = 20261124
EXAMPLES = 4


@pytest.mark.timeout(600)
def test_schemathesis_finds_nothing(settings: ApiSettings, tmp_path: Path):
    """Examples, the edges of every schema, and random requests, from one seed."""
    # Room for the largest arrays: a body that is too large is told from one that is wrong.
    with serve(settings.model_copy(update={"max_body_bytes": MEBIBYTE})) as running:
        done = schemathesis_run(f"{str(running.client.base_url).rstrip('/')}/openapi.json", tmp_path)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "Tested:" in done.stdout


def schemathesis_run(url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    options = {
        "--seed": str(SEED),
        "--max-examples": str(EXAMPLES),
        "--phases": "examples,coverage,fuzzing",
        "--exclude-path-regex": "stream$",
        "--exclude-checks": "ignored_auth,positive_data_acceptance",
        "--request-timeout": "60",
    }
    command = [sys.executable, "-m", "schemathesis.cli", "run", url, "--no-color"]
    return subprocess.run(
        [*command, *(part for option in options.items() for part in option)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
