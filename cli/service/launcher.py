"""Runs the API and a worker as child processes until told to stop: waits for readiness, restarts, forwards signals.

It holds no job state: whatever dies here, the database and the leases bring the work back.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cli.errors import CliError, ExitCode
from cli.service.checks import check_port, check_writable, lock_data_dir
from cli.service.child import Child, exit_text
from cli.service.commands import WORKER_COMMAND, api_command

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import FrameType

POLL_SECONDS = 0.2
LOG_CHECK_SECONDS = 10.0
READY_TIMEOUT_SECONDS = 120.0
# A worker finishes the block under way and gives its job back, which takes up to 300 s (drain_seconds).
STOP_GRACE_SECONDS = 320.0
# After a second stop request; what is killed then is recovered by the job's lease.
HURRIED_GRACE_SECONDS = 5.0
NOTICE_AFTER_SECONDS = 5.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOptions:
    """What `bitmill up` was asked for. environment: of the children, complete."""

    data_dir: Path
    host: str
    port: int
    environment: Mapping[str, str]

    @property
    def url(self) -> str:
        """Returns the address that a client on this machine uses."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(self.host, self.host)  # noqa: S104 - read, not bound
        return f"http://{host}:{self.port}"


class Launcher:
    """One run of the service. Call `run` once, from the main thread (signal handlers live there)."""

    def __init__(self, options: ServiceOptions, migrate: Callable[[], None], report: Callable[[str], None]) -> None:
        """Migrate brings the database to the newest schema; report takes one line for a person."""
        self._options = options
        self._migrate = migrate
        self._report = report
        self._stop_requests = 0
        self._wake = threading.Event()
        logs = options.data_dir / "logs"
        self._children = (
            Child(
                name="api",
                command=api_command(options.host, options.port),
                environment=options.environment,
                log_path=logs / "api.log",
            ),
            Child(
                name="worker",
                command=WORKER_COMMAND,
                environment=options.environment,
                log_path=logs / "worker.log",
            ),
        )

    @property
    def processes(self) -> dict[str, int]:
        """Returns the process id of each running child."""
        return {child.name: child.process.pid for child in self._children if child.process}

    def run(self, on_ready: Callable[[], None]) -> None:
        """Serves until a stop signal comes; `on_ready` is called once, when the API first answers.

        Raises CliError if the service cannot be started; no process is left in any case.
        """
        check_writable(self._options.data_dir)
        lock = lock_data_dir(self._options.data_dir, self._options.url)
        try:
            check_port(self._options.host, self._options.port)
            self._migrate()
            self._serve(on_ready)
        finally:
            os.close(lock)

    def _serve(self, on_ready: Callable[[], None]) -> None:
        tether, tether_held = os.pipe()
        previous = {number: signal.signal(number, self._request_stop) for number in STOP_SIGNALS}
        try:
            for child in self._children:
                child.start(tether)
            if self._wait_ready():
                on_ready()
                self._supervise(tether)
            self._stop()
        finally:
            for child in self._children:
                child.kill_group()
            for number, handler in previous.items():
                signal.signal(number, handler)
            os.close(tether)
            os.close(tether_held)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's signature
        self._stop_requests += 1
        self._wake.set()

    def _wait_ready(self) -> bool:
        """Returns True once the API is ready, False if a stop was asked for meanwhile; raises CliError otherwise."""
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        while not self._stop_requests:
            for child in self._children:
                if (code := child.exit_code()) is not None:
                    raise _start_error(child, f"ended at its start ({exit_text(code)})")
            if answers(f"{self._options.url}/readyz"):
                return True
            if time.monotonic() > deadline:
                raise _start_error(self._children[0], f"was not ready after {READY_TIMEOUT_SECONDS:.0f} s")
            self._wake.wait(POLL_SECONDS)
        return False

    def _supervise(self, tether: int) -> None:
        next_log_check = time.monotonic()
        while not self._stop_requests:
            for child in self._children:
                self._revive(child, tether)
            if time.monotonic() >= next_log_check:
                next_log_check += LOG_CHECK_SECONDS
                for child in self._children:
                    child.trim_log()
            self._wake.wait(POLL_SECONDS)

    def _revive(self, child: Child, tether: int) -> None:
        if child.restart_due():
            child.start(tether)
            self._report(f"{child.name} restarted")
        elif (code := child.exit_code()) is not None:
            child.kill_group()
            delay = child.schedule_restart()
            self._report(f"{child.name} died ({exit_text(code)}); restarting in {delay:g} s, see {child.log_path}")

    def _stop(self) -> None:
        """Ends the children by TERM; what has not ended when the time is up is killed by the caller."""
        self._signal_all(signal.SIGTERM)
        started_at = time.monotonic()
        deadline = started_at + STOP_GRACE_SECONDS
        requests_seen = self._stop_requests
        notice_at = started_at + NOTICE_AFTER_SECONDS
        while self._any_running() and time.monotonic() < deadline:
            self._wake.clear()
            self._wake.wait(POLL_SECONDS)
            if self._stop_requests > requests_seen:
                requests_seen = self._stop_requests
                deadline = min(deadline, time.monotonic() + HURRIED_GRACE_SECONDS)
                self._signal_all(signal.SIGTERM)
            if time.monotonic() > notice_at:
                notice_at = deadline
                self._report("Waiting for the worker to finish its block; Ctrl-C again stops at once.")

    def _signal_all(self, number: signal.Signals) -> None:
        for child in self._children:
            child.signal(number)

    def _any_running(self) -> bool:
        return any(child.process and child.exit_code() is None for child in self._children)


def answers(url: str) -> bool:
    """Whether a GET is answered with 200 within a second."""
    try:
        # A proxy from the environment has no business between a launcher and its own child.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=1.0) as response:
            return bool(response.status == 200)  # noqa: PLR2004 - HTTP OK
    except (urllib.error.URLError, OSError):
        return False


def _start_error(child: Child, what: str) -> CliError:
    tail = child.log_tail()
    return CliError(
        ExitCode.UNAVAILABLE,
        f"The {child.name} process {what}. Last lines of {child.log_path}:\n{tail}",
        hint="Read the lines above for the cause; nothing was left running.",
        code="start_failed",
    )
