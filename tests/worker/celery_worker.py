"""Runs the worker as it is run in production, by the same command, and ends it in the ways that production ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.worker.bench import worker_children
from worker.settings import PACKAGE_ROOT, WorkerSettings

COMMAND = ("celery", "-A", "worker.celery_app", "worker", "--pool", "threads", "--concurrency", "1", "-Q", "default")


class WorkerProcess:
    """A running worker and its log."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self._popen = popen
        self._log = log

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def log(self) -> str:
        return self._log.read_text()

    def children(self) -> list[psutil.Process]:
        return worker_children(psutil.Process(self._popen.pid))

    def kill(self) -> None:
        """Kills the worker without warning."""
        self._popen.send_signal(signal.SIGKILL)
        self._popen.wait()

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def wait(self, seconds: float) -> int:
        return self._popen.wait(seconds)


@contextmanager
def celery_worker(settings: WorkerSettings, log: Path) -> Iterator[WorkerProcess]:
    """Starts a worker with these settings in a session of its own; at the end it is gone."""
    with log.open("ab") as output:
        popen = subprocess.Popen(
            COMMAND,
            env={**os.environ, **environment_of(settings), "PATH": _path(), "OMP_NUM_THREADS": "1"},
            cwd=PACKAGE_ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield WorkerProcess(popen, log)
    finally:
        if popen.poll() is None:
            popen.terminate()
            try:
                popen.wait(20)
            except subprocess.TimeoutExpired:
                popen.kill()
                popen.wait()


def environment_of(settings: WorkerSettings) -> dict[str, str]:
    """Returns the BITMILL_* variables that make these settings."""
    values: dict[str, Any] = settings.model_dump(
        exclude={"model_roots", "queue_classes", "hub_token", "secret_key"}, exclude_none=True
    )
    roots = os.pathsep.join(f"{root.name}={root.path}" for root in settings.model_roots)
    return {
        **{f"BITMILL_{name.upper()}": str(value) for name, value in values.items()},
        "BITMILL_MODEL_ROOTS": roots,
        "BITMILL_QUEUE_CLASSES": ",".join(settings.queue_classes),
    }


def _path() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
