"""Says what a child's death means: exit code, signal, kernel out-of-memory, or silence becomes one failure code."""

from __future__ import annotations

import signal
from enum import StrEnum

from worker.errors import Failure
from worker.process import ChildExit

CRASH_SIGNALS = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGSYS, signal.SIGTRAP}
)
TAIL_CHARACTERS = 600


class Fault(StrEnum):
    """Why the supervisor itself killed a child."""

    FROZEN = "it sent no sign of life"
    STALLED = "it reported no work"
    GARBLED = "it wrote a line that is not of the protocol"


def failure_of(exit_: ChildExit, fault: Fault | None) -> Failure:
    """Returns the failure of a child that ended without a last line. fault: set where the supervisor killed it."""
    if fault is Fault.GARBLED:
        return _failure("child_protocol", f"The engine process was ended: {fault}.", exit_)
    if fault is not None:
        return _failure("child_hung", f"The engine process hung and was ended: {fault}.", exit_)
    if exit_.returncode >= 0:
        return _failure("child_exited", f"The engine process ended with exit code {exit_.returncode}.", exit_)
    number = -exit_.returncode
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    if number == signal.SIGKILL and exit_.oom_kills > 0:
        return Failure(
            code="out_of_memory",
            message="The system ended the engine process because memory ran out.",
            hint="Use fewer or shorter calibration windows, or a worker with more memory.",
        )
    if number in CRASH_SIGNALS:
        return _failure("child_crashed", f"The engine process crashed with {name}.", exit_)
    return _failure("child_killed", f"The engine process was ended from outside with {name}.", exit_)


def _failure(code: str, message: str, exit_: ChildExit) -> Failure:
    tail = exit_.stderr_tail[-TAIL_CHARACTERS:].strip()
    hint = f"Its last words: {tail}" if tail else "It left no message; the worker's log may have more."
    return Failure(code=code, message=message, hint=hint)
