"""Starts workers and APIs by way of the zygote, signals them, and says what of them is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.worker.bench import is_child
from worker.settings import PACKAGE_ROOT

GONE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Forked:
    """A forked process and its log."""

    process: psutil.Process
    log: Path

    @property
    def running(self) -> bool:
        return self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE

    def children(self) -> list[psutil.Process]:
        """Returns the job processes below it."""
        with suppress(psutil.NoSuchProcess):
            return [child for child in self.process.children(recursive=True) if is_child(child)]
        return []

    def kill(self) -> None:
        """Kills it without warning and waits until it and its children are gone."""
        children = self.children()
        self.signal(signal.SIGKILL)
        self.wait()
        _, alive = psutil.wait_procs(children, timeout=GONE_SECONDS)
        assert not alive, f"children outlived their worker: {alive}"

    def signal(self, number: signal.Signals) -> None:
        with suppress(psutil.NoSuchProcess):
            self.process.send_signal(number)

    def freeze(self) -> None:
        """Stops it and its children, as a paused machine is stopped; a child may end meanwhile."""
        for process in [self.process, *self.children()]:
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def thaw(self) -> None:
        """Lets them go on, those that are still there."""
        for process in [*self.children(), self.process]:
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def wait(self, seconds: float = GONE_SECONDS) -> None:
        """Waits for its end."""
        try:
            self.process.wait(seconds)
        except psutil.TimeoutExpired:
            raise AssertionError(f"it still runs: {self.log.read_text()[-3000:]}") from None


class Zygote:
    """The process that forks. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "tests.fault.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=PACKAGE_ROOT,
            text=True,
            bufsize=1,
            start_new_session=True,
        )

    def fork(self, role: str, environment: Mapping[str, str], log: Path, **order: Any) -> Forked:  # noqa: ANN401 - JSON
        """Starts a worker or an API. environment: its BITMILL_* and other variables, beside the test's own."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BITMILL_")}
        line = {
            "role": role,
            "environment": {**kept, "OMP_NUM_THREADS": "1", **environment},
            "log": str(log),
            "clock_offset": 0,
            **order,
        }
        with self._lock:
            assert self._popen.stdin is not None
            assert self._popen.stdout is not None
            self._popen.stdin.write(json.dumps(line) + "\n")
            pid = int(self._popen.stdout.readline())
        return Forked(psutil.Process(pid), log)

    def close(self) -> None:
        """Ends it, and with it whatever it forked."""
        for pipe in (self._popen.stdin, self._popen.stdout):
            assert pipe is not None
            pipe.close()
        self._popen.wait(GONE_SECONDS)


@contextmanager
def zygote() -> Iterator[Zygote]:
    """Runs one."""
    started = Zygote()
    try:
        yield started
    finally:
        started.close()


def job_processes(folder: Path) -> list[psutil.Process]:
    """Returns the processes of jobs whose work folders lie below a folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
            if is_child(process) and Path(process.cwd()).is_relative_to(folder):
                found.append(process)
    return found
