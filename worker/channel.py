"""The child's end of the pipe: reads the spec and stop requests, writes events and signs of life, ends with its parent.

It knows nothing of what the child does. Standard output belongs to the protocol alone: everything that a library
prints is sent to standard error.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from core.events import BlockQuantized, Event, Stage, StageStarted
from worker.errors import Failure
from worker.protocol import (
    EXIT_FAILED,
    EXIT_FORSAKEN,
    EXIT_ORPHANED,
    MAX_LINE_BYTES,
    EngineEvent,
    FailureLine,
    Line,
    Stop,
    Tick,
    parse_to_child,
)

TICK_SECONDS = 1.0
_STDIN = 0
_STDOUT = 1
_STDERR = 2
_PR_SET_PDEATHSIG = 1


class Channel:
    """Open one per process, read the spec, then `listen`."""

    def __init__(self) -> None:
        """Takes standard output for the protocol and points file descriptor 1 at standard error."""
        self._out = os.dup(_STDOUT)
        os.dup2(_STDERR, _STDOUT)
        self._write_lock = threading.Lock()
        self._buffer = b""
        self._stop_now = threading.Event()
        self._stop_after_block = threading.Event()
        self._quantizing = False

    def read_spec(self) -> bytes:
        """Returns the first line; ends the process where the supervisor is gone before it wrote one."""
        while b"\n" not in self._buffer:
            self._receive(None)
        spec, self._buffer = self._buffer.split(b"\n", 1)
        return spec

    def listen(self, silence_seconds: float) -> None:
        """Starts the threads that follow the supervisor's lines and tell it that this process lives."""
        die_with_parent()
        threading.Thread(target=self._follow, args=(silence_seconds,), name="channel-in", daemon=True).start()
        threading.Thread(target=self._tick, name="channel-tick", daemon=True).start()

    def should_stop(self) -> bool:
        """Whether the engine should stop at its next chance."""
        return self._stop_now.is_set()

    def emit(self, event: Event) -> None:
        """Passes an engine event on; a stop that waits for the end of a block takes effect here."""
        if isinstance(event, StageStarted):
            self._quantizing = event.stage is Stage.QUANTIZING
        # Asked before the line is out: a request that answers this very event is about the next block.
        if self._stop_after_block.is_set() and (isinstance(event, BlockQuantized) or not self._quantizing):
            self._stop_now.set()
        self.write(EngineEvent(event=event.to_dict()))

    def write(self, line: Line) -> None:
        """Writes one line; ends the process where nobody reads any more."""
        data = memoryview(line.encode())
        try:
            with self._write_lock:
                while data:
                    data = data[os.write(self._out, data) :]
        except BrokenPipeError:
            _end(EXIT_ORPHANED)

    def fail(self, failure: Failure) -> int:
        """Writes the failure and returns the exit code that goes with it."""
        self.write(
            FailureLine(
                code=failure.code,
                message=failure.message,
                hint=failure.hint,
                block=failure.block,
                linear=failure.linear,
            )
        )
        return EXIT_FAILED

    def _follow(self, silence_seconds: float) -> None:
        while True:
            while b"\n" in self._buffer:
                line, self._buffer = self._buffer.split(b"\n", 1)
                self._obey(line)
            self._receive(silence_seconds)

    def _obey(self, line: bytes) -> None:
        request = parse_to_child(line)
        if not isinstance(request, Stop):
            return
        if request.after_block and self._quantizing:
            self._stop_after_block.set()
        else:
            self._stop_now.set()

    def _receive(self, silence_seconds: float | None) -> None:
        readable, _, _ = select.select([_STDIN], [], [], silence_seconds)
        if not readable:
            _end(EXIT_FORSAKEN)
        data = os.read(_STDIN, MAX_LINE_BYTES)
        if not data:
            _end(EXIT_ORPHANED)
        self._buffer += data

    def _tick(self) -> None:
        waiting = threading.Event()
        while True:
            self.write(Tick(rss_bytes=resident_bytes()))
            waiting.wait(TICK_SECONDS)


def _end(code: int) -> None:
    # Not sys.exit: this is called from threads, and the main thread may be deep inside a kernel.
    os._exit(code)


def die_with_parent() -> None:
    """Asks Linux to kill this process when the supervisor's thread ends; end-of-file needs a thread that runs."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            _end(EXIT_ORPHANED)


def resident_bytes(statm: Path = Path("/proc/self/statm")) -> int | None:
    """Returns this process's resident memory, None where the system does not tell."""
    try:
        pages = int(statm.read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def run_child(main: Callable[[Channel], int]) -> None:
    """Runs a child's main function on a fresh channel and ends the process with the code it returns."""
    code = main(Channel())
    sys.stderr.flush()
    # The interpreter's own teardown would wait for library threads; everything that counts is on disk by now.
    os._exit(code)
