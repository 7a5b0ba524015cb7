"""Starts `bitmill up` for the demo as a process of its own, and proves at the end that nothing of it is left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import psutil

from cli.errors import CliError, ExitCode
from cli.settings import service_environment

if TYPE_CHECKING:
    from pathlib import Path

START_SECONDS = 120.0
STOP_SECONDS = 60.0
POLL_SECONDS = 0.1
LOG_NAME = "up.log"


@dataclass(slots=True, kw_only=True)
class DemoService:
    """A running service. pid: of the launcher."""

    url: str
    pid: int
    data_dir: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, data_dir: Path, port: int, *, models: Path, keep: bool) -> Self:
        """Starts the service and waits until it is ready; raises CliError with its own words if it does not start.

        models: the one folder below which it accepts models.

        Unless it is to be kept, it is tethered to this process: it ends however this process ends.
        """
        data_dir.mkdir(parents=True, exist_ok=True)
        log_path = data_dir / LOG_NAME
        tether = () if keep else ("cli.service.tether",)
        command = [
            sys.executable,
            "-m",
            *tether,
            "cli",
            "up",
            "--data-dir",
            str(data_dir),
            "--port",
            str(port),
            "--json",
        ]
        with log_path.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - our own program, no shell
                command,
                stdin=subprocess.DEVNULL if keep else subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=service_environment(model_roots=f"models={models}"),
                # Ctrl-C in the terminal is for the demo, which then stops the service in order.
                start_new_session=True,
            )
        ready = _wait_ready(process, log_path)
        return cls(url=ready["url"], pid=process.pid, data_dir=data_dir, process=process)

    def stop(self) -> int:
        """Stops the service and returns how many of its processes are left: 0, or something is wrong."""
        family = _family(self.pid)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        _, left = psutil.wait_procs(family, timeout=5.0)
        return len(left)


def _wait_ready(process: subprocess.Popen[bytes], log_path: Path) -> dict[str, str]:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        for line in log_path.read_text(errors="replace").splitlines():
            if line.startswith('{"event": "ready"'):
                values: dict[str, str] = json.loads(line)
                return values
        if process.poll() is not None:
            break
        time.sleep(POLL_SECONDS)
    process.kill()
    raise CliError(
        ExitCode.UNAVAILABLE,
        f"The service did not start:\n{log_path.read_text(errors='replace').strip()}",
        hint="Read the lines above for the cause.",
        code="start_failed",
    )


def _family(pid: int) -> list[psutil.Process]:
    try:
        launcher = psutil.Process(pid)
        return [launcher, *launcher.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
