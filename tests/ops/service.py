"""Starts `bitmill up` as a user does, for tests, and makes sure that nothing of it outlives the test."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from cli.service.checks import free_port

BITMILL = (sys.executable, "-m", "cli")


@dataclass(frozen=True, slots=True)
class RunningService:
    """A service that is ready. launcher: the process of `bitmill up`."""

    url: str
    data_dir: Path
    launcher: subprocess.Popen[str]
    environment: Mapping[str, str]

    def child(self, name: str) -> psutil.Process:
        """Returns the launcher's child that runs the program of this name."""
        found = self.find_child(name)
        assert found is not None, f"no {name} process"
        return found

    def find_child(self, name: str) -> psutil.Process | None:
        """Returns the launcher's living child that runs the program of this name, if there is one just now."""
        for process in psutil.Process(self.launcher.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if name in process.cmdline():
                    return process
        return None

    def family(self) -> list[psutil.Process]:
        """Returns the launcher and everything below it."""
        launcher = psutil.Process(self.launcher.pid)
        return [launcher, *launcher.children(recursive=True)]

    def ready(self) -> bool:
        """Whether the API answers that it is ready."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


def environment(models: Path | None = None, **variables: str) -> dict[str, str]:
    """Returns an environment without the developer's own settings; models: the one allowed root, named `models`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BITMILL_")}
    roots = {} if models is None else {"BITMILL_MODEL_ROOTS": f"models={models}"}
    return {**kept, "OMP_NUM_THREADS": "1", "COLUMNS": "120", **roots, **variables}


def run_bitmill(*arguments: str, timeout: float = 60, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs one command to its end."""
    return subprocess.run(
        [*BITMILL, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        check=False,
    )


@contextmanager
def running_service(
    data_dir: Path, models: Path | None = None, cache_dir: Path | None = None, **settings: str
) -> Iterator[RunningService]:
    """Yields a ready service, settings by their variables; on leaving, every process of it is gone."""
    variables = environment(models, BITMILL_CACHE_DIR=str(cache_dir or data_dir.parent / "cache"), **settings)
    command = [*BITMILL, "up", "--data-dir", str(data_dir), "--port", str(free_port()), "--json"]
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables, start_new_session=True)
    family: list[psutil.Process] = []
    try:
        assert launcher.stdout is not None
        ready = json.loads(launcher.stdout.readline())
        assert ready["event"] == "ready"
        service = RunningService(ready["url"], data_dir, launcher, variables)
        family = service.family()
        yield service
    finally:
        if launcher.poll() is None:
            family = list({*family, *psutil.Process(launcher.pid).children(recursive=True)})
            launcher.terminate()
        try:
            launcher.wait(60)
        except subprocess.TimeoutExpired:
            launcher.kill()
            launcher.wait()
        for process in family:
            if process.is_running():
                process.kill()
        if launcher.stdout is not None:
            launcher.stdout.close()


def wait_until(condition: object, seconds: float = 30) -> None:
    """Waits for a callable to return True; fails the test when the time is up."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)
