"""The supervisor's end of the pipe: starts a child, reads its lines, signals it, reaps it and says how it died.

It decides nothing: when to stop or kill is `ladder` and `runner`.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from pydantic import ValidationError
from structlog.typing import FilteringBoundLogger

from worker.protocol import MAX_LINE_BYTES, FromChild, Line, parse_from_child
from worker.settings import python_command

LINES_WAITING = 1_000
STDERR_LINES_KEPT = 40
REAP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Garbled:
    """A line on the child's protocol pipe that is none of ours."""

    text: str


@dataclass(frozen=True, slots=True)
class EndOfOutput:
    """The child closed its pipe: it has ended or is about to."""


Received = FromChild | Garbled | EndOfOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildExit:
    """How a child ended. returncode: negative for a signal. oom_kills: of the kernel, while the child lived."""

    returncode: int
    oom_kills: int
    stderr_tail: str


class ChildProcess:
    """One running child. Use as a context manager: on the way out it is dead and reaped, whatever happened."""

    def __init__(
        self,
        module: str,
        spec: Line,
        *,
        environment: Mapping[str, str],
        folder: Path,
        log: FilteringBoundLogger,
        on_text: Callable[[str], None],
    ) -> None:
        """Starts `python -m module` in `folder` with nothing but `environment`, and sends the spec.

        log, on_text: get what the child writes on standard error, line by line, in a thread of their own.
        """
        self._log = log
        self._on_text = on_text
        self._oom_kills_before = kernel_oom_kills()
        self._received: queue.Queue[Received] = queue.Queue(LINES_WAITING)
        self._stderr_tail: deque[str] = deque(maxlen=STDERR_LINES_KEPT)
        # A session of its own: a terminal's Ctrl-C reaches the supervisor only, and kill reaches the child's children.
        self._popen = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            python_command(module),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
            cwd=folder,
            bufsize=0,
            start_new_session=True,
        )
        self._readers = [
            threading.Thread(target=self._read_lines, args=(_pipe(self._popen.stdout),), daemon=True),
            threading.Thread(target=self._read_log, args=(_pipe(self._popen.stderr),), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self.send(spec)

    @property
    def pid(self) -> int:
        """Returns the child's process id."""
        return self._popen.pid

    def receive(self, timeout: float) -> Received | None:
        """Returns the next line, None where none came in time."""
        try:
            return self._received.get(timeout=timeout)
        except queue.Empty:
            return None

    def send(self, line: Line) -> None:
        """Sends one line; a child that has ended does not hear it, which its exit will tell."""
        data = memoryview(line.encode())
        with suppress(BrokenPipeError):
            while data:
                data = data[os.write(_pipe(self._popen.stdin).fileno(), data) :]

    def signal(self, number: signal.Signals) -> None:
        """Signals the child and everything that it started."""
        if self._popen.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._popen.pid, number)

    def reap(self) -> ChildExit:
        """Waits for the end of a child that has closed its pipe, by force where it does not come, and tells how."""
        try:
            self._popen.wait(REAP_SECONDS)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self._popen.wait()
        self._readers[1].join(REAP_SECONDS)
        return ChildExit(
            returncode=self._popen.returncode,
            oom_kills=kernel_oom_kills() - self._oom_kills_before,
            stderr_tail="\n".join(self._stderr_tail),
        )

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kills and reaps what still runs, and closes the pipes."""
        self.signal(signal.SIGKILL)
        self._popen.wait()
        while any(reader.is_alive() for reader in self._readers):
            self.receive(0.01)  # a reader may wait for room in the queue
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            _pipe(pipe).close()

    def _read_lines(self, pipe: IO[bytes]) -> None:
        buffer = b""
        while data := os.read(pipe.fileno(), MAX_LINE_BYTES):
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                self._received.put(_parse(line))
            if len(buffer) > MAX_LINE_BYTES:
                self._received.put(Garbled(buffer[:200].decode(errors="replace")))
                buffer = b""
        self._received.put(EndOfOutput())

    def _read_log(self, pipe: IO[bytes]) -> None:
        buffer = b""
        while data := os.read(pipe.fileno(), MAX_LINE_BYTES):
            *lines, buffer = (buffer + data).split(b"\n")
            for line in [*lines, buffer] if len(buffer) > MAX_LINE_BYTES else lines:
                text = line.decode(errors="replace")
                self._stderr_tail.append(text)
                self._log.info("child_output", child_pid=self._popen.pid, text=text)
                self._on_text(text)
            if len(buffer) > MAX_LINE_BYTES:
                buffer = b""


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise RuntimeError("the child was started without this pipe")
    return pipe


def _parse(line: bytes) -> Received:
    try:
        return parse_from_child(line)
    except ValidationError:
        return Garbled(line[:200].decode(errors="replace"))


def kernel_oom_kills(
    counters: tuple[Path, ...] = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat")),
) -> int:
    """Returns how often the kernel killed a process for memory: in our control group, else on the machine, else 0."""
    for counter in counters:
        try:
            lines = counter.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0
