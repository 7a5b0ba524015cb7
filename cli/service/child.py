"""One child process of the launcher: tethered, logged to a file, restarted with a growing delay when it dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
# A child that ran this long was healthy: its next death starts the delays from the beginning.
HEALTHY_SECONDS = 60.0
LARGEST_LOG_BYTES = 20_000_000


def restart_delay(deaths: int) -> float:
    """Returns the seconds to wait before the restart that follows the given number of deaths in a row (1 or more)."""
    return min(FIRST_DELAY_SECONDS * 2.0 ** (deaths - 1), LONGEST_DELAY_SECONDS)


def exit_text(code: int) -> str:
    """Returns an exit status in words."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


@dataclass(slots=True, kw_only=True)
class Child:
    """A program of the service. command: as typed in a shell; log_path: where its output goes, appended."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log_path: Path
    process: subprocess.Popen[bytes] | None = None
    _started_at: float = 0.0
    _deaths: int = 0
    _restart_at: float = field(default=float("inf"))

    def start(self, tether: int) -> None:
        """Starts the program; `tether` is the read end of the pipe that the launcher never writes to.

        Its own process group keeps a terminal's Ctrl-C away from it: the launcher alone decides how it ends.
        """
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own command, no shell
                [sys.executable, "-m", "cli.service.tether", *self.command],
                stdin=tether,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self.environment),
                process_group=0,
            )
        self._started_at = time.monotonic()
        self._restart_at = float("inf")

    def exit_code(self) -> int | None:
        """Returns the exit status of a program that has ended, negative for a signal; None while it runs."""
        return self.process.poll() if self.process else None

    def schedule_restart(self) -> float:
        """Notes a death and returns the delay before the restart, in seconds."""
        now = time.monotonic()
        self._deaths = 1 if now - self._started_at > HEALTHY_SECONDS else self._deaths + 1
        delay = restart_delay(self._deaths)
        self._restart_at = now + delay
        self.process = None
        return delay

    def restart_due(self) -> bool:
        """Whether the delay after a death has passed."""
        return self.process is None and time.monotonic() >= self._restart_at

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the program if it runs."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)

    def kill_group(self) -> None:
        """Kills the program and everything that it started in its process group, and reaps it."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def trim_log(self) -> None:
        """Moves a log that has grown too long aside. The child appends, so truncating under it is safe."""
        if not self.log_path.exists() or self.log_path.stat().st_size < LARGEST_LOG_BYTES:
            return
        old = self.log_path.with_suffix(".log.1")
        old.write_bytes(self.log_path.read_bytes())
        os.truncate(self.log_path, 0)

    def log_tail(self, lines: int = 12) -> str:
        """Returns the last lines of the log."""
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])
