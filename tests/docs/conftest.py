"""One running service with a tiny model for everything that pages and examples show."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.core.preflight.archives import folder_files, pack
from tests.kernels import with_kernels
from tests.ops.service import RunningService, environment, running_service, wait_until
from tests.worker.models import write_tiny_llama

ROOT = Path(__file__).parents[2]
DEMO_MODEL = "~/.cache/bitmill/models/SmolLM2-135M-Instruct"
Shell = Callable[..., str]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one allowed root of the service, with the model `tiny` in it."""
    root = tmp_path_factory.mktemp("models")
    write_tiny_llama(root / "tiny", blocks=2, hidden=64)
    return root


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[RunningService]:
    """`bitmill up`, ready."""
    cache_dir = with_kernels(tmp_path_factory.mktemp("cache"))
    with running_service(tmp_path_factory.mktemp("service") / "data", models, cache_dir) as running:
        yield running


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `bitmill` and `python`, as an activated environment has them."""
    folder = tmp_path_factory.mktemp("programs")
    # A link would lose the environment that Python finds its packages by.
    for name, start in {"bitmill": f"{sys.executable} -m cli", "python": sys.executable}.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {start} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


def run_script(script: str, programs: Path, cwd: Path, **variables: str) -> str:
    """Runs a script as a reader would and returns what it printed; any failing command ends it and fails the test."""
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**environment(), "PATH": path, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", **variables},
        stdin=subprocess.DEVNULL,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="package")
def placeholders(service: RunningService, models: Path) -> dict[str, str]:
    """What placeholders of the pages stand for: a job that has succeeded, the worker that did it, models and a text."""
    request = {"model": {"source": "path", "path": str(models / "tiny")}, "method": "rtn", "group_size": 32}
    with httpx.Client(base_url=service.url, trust_env=False) as client:
        job = client.post("/v1/jobs", json=request).json()["id"]
        wait_until(lambda: client.get(f"/v1/jobs/{job}").json()["state"] == "succeeded", seconds=120)
        worker = client.get("/v1/workers").json()["data"][0]["id"]
        archive = pack(folder_files(models / "tiny"), "tar")
        model = client.post("/v1/uploaded-models", files={"file": ("tiny.tar", archive)}).json()["id"]
        text = client.post("/v1/calibration-sets", files={"file": ("a.txt", b"some text " * 50)}).json()["id"]
    tiny = str(models / "tiny")
    ids = {"JOB_ID": job, "WORKER_ID": worker, "MODEL_ID": model, "SET_ID": text}
    return {**ids, "MODEL_FOLDER": tiny, DEMO_MODEL: tiny}


@pytest.fixture
def shell(service: RunningService, models: Path, programs: Path, tmp_path: Path) -> Shell:
    """Runs a script in a folder of its own, where the service and the model `tiny` are found by their variables."""
    variables = {
        **{name: value for name, value in service.environment.items() if name.startswith("BITMILL_")},
        "BITMILL_URL": service.url,
        "BITMILL_DATA_DIR": str(service.data_dir),
        "BITMILL_MODEL": str(models / "tiny"),
        "NUMBA_CACHE_DIR": str(Path(service.environment["BITMILL_CACHE_DIR"]) / "numba"),
        "MPLCONFIGDIR": str(tmp_path / "matplotlib"),
    }

    def run(script: str, cwd: Path = tmp_path, **more: str) -> str:
        return run_script(script, programs, cwd, **{**variables, **more})

    return run
