"""`bitmill demo` on a tiny model: every step of the real demo, its proof, and what is left running afterwards."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import httpx
import psutil
import pytest

from cli.errors import ExitCode
from cli.service.checks import free_port
from tests.ops.service import run_bitmill, wait_until
from tests.worker.models import write_tiny_llama


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("models") / "tiny", blocks=4, hidden=64)


def demo(model: Path, folder: Path, *options: str) -> dict[str, object]:
    """Runs the demo and returns its facts."""
    command = ("demo", "--model", str(model), "--dst", str(folder), "--port", str(free_port()), "--json", *options)
    done = run_bitmill(*command, timeout=240, BITMILL_CACHE_DIR=str(model.parent / "cache"))
    assert done.returncode == ExitCode.OK, done.stderr
    facts: dict[str, object] = json.loads(done.stdout)
    return facts


def test_the_demo_proves_each_step_and_leaves_no_process(model: Path, tmp_path: Path):
    """Submitted, quantized, downloaded, verified, measured, generated; then nothing of it runs any more."""
    facts = demo(model, tmp_path)
    assert facts["verified"] == {"files": facts["downloaded"]["files"] - 1}  # type: ignore[index]  # JSON objects
    assert 0.5 < facts["perplexity"]["ratio"] < 2.0  # type: ignore[index]  # same
    assert facts["stopped"] == {"processes_left": 0}
    assert not [
        process for process in psutil.process_iter(["cmdline"]) if str(tmp_path) in (process.info["cmdline"] or [])
    ]
    (artifact,) = (path for path in tmp_path.iterdir() if path.name != "service")
    assert (artifact / "SHA256SUMS").is_file()


def test_a_kept_service_outlives_the_demo_and_stops_on_term(model: Path, tmp_path: Path):
    """With --keep the printed address answers after the demo has ended, and one signal to the printed id ends it."""
    kept = demo(model, tmp_path, "--keep")["kept up"]
    assert isinstance(kept, dict)
    family = [psutil.Process(kept["pid"]), *psutil.Process(kept["pid"]).children(recursive=True)]
    try:
        assert httpx.get(f"{kept['url']}/readyz", trust_env=False).status_code == 200
        again = run_bitmill("demo", "--model", str(model), "--dst", str(tmp_path), "--port", str(free_port()))
        assert again.returncode == ExitCode.UNAVAILABLE
        assert "in use by the service at" in again.stderr
    finally:
        os.kill(kept["pid"], signal.SIGTERM)
    wait_until(lambda: not any(process.is_running() for process in family))
