"""Runs one child to its end: passes its lines on, keeps it alive with ticks, and ends it when there is a reason to.

A child ends in exactly one way here: a result, a stop that was asked for, a failure, or a lost lease.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import assert_never

from worker.drain import Drain
from worker.errors import AttemptFailedError, AttemptStoppedError, Failure, StopReason
from worker.exits import Fault, failure_of
from worker.ladder import Ladder, Patience, Step
from worker.lease import Lease
from worker.process import ChildProcess, EndOfOutput, Garbled
from worker.protocol import EngineEvent, FailureLine, Fetched, Result, Stop, Stopped, Tick
from worker.settings import WorkerSettings

TICK_SECONDS = 1.0
LOOK_SECONDS = 0.1


class ChildRunner:
    """One child under one lease. `run` may be called once."""

    def __init__(
        self,
        child: ChildProcess,
        lease: Lease,
        drain: Drain,
        settings: WorkerSettings,
        *,
        on_line: Callable[[Tick | Fetched | EngineEvent], None],
        stall_limit_seconds: float | None,
    ) -> None:
        """on_line: is given every tick and event; the last line comes back from `run`.

        stall_limit_seconds: the longest time without an event; None for a child that reports none.
        """
        self._stall_limit_seconds = stall_limit_seconds
        self._child = child
        self._lease = lease
        self._drain = drain
        self._settings = settings
        self._on_line = on_line
        self._ladder = Ladder(
            Patience(
                after_block=settings.drain_seconds,
                stop=settings.stop_grace_seconds,
                term=settings.kill_grace_seconds,
            )
        )
        self._last: Result | FailureLine | Stopped | None = None
        self._fault: Fault | None = None
        self._ticked_at = self._heard_at = self._worked_at = time.monotonic()

    def run(self) -> Result:
        """Returns the child's result.

        Raises AttemptStoppedError where a cancel or a drain ended it, LeaseLostError where the claim was lost on the
        way, AttemptFailedError where it failed or died, or the job's deadline came first.
        """
        while self._take():
            self._look()
        exit_ = self._child.reap()
        self._lease.go_on()
        if isinstance(self._last, Result):
            return self._last
        if isinstance(self._last, FailureLine):
            raise AttemptFailedError(_failure_from_line(self._last))
        if self._fault is None and self._stopped_by_us():
            raise AttemptStoppedError(StopReason.DRAIN)
        raise AttemptFailedError(failure_of(exit_, self._fault))

    def _stopped_by_us(self) -> bool:
        """Whether the end was asked for; a child that crashes between the request and its stop has still crashed."""
        heard = isinstance(self._last, Stopped) and self._ladder.rung is not Step.NONE
        return heard or self._ladder.rung >= Step.TERM

    def _take(self) -> bool:
        """Handles one line; returns False once the child has closed its pipe."""
        line = self._child.receive(LOOK_SECONDS)
        if line is None:
            return True
        self._heard_at = time.monotonic()
        match line:
            case EndOfOutput():
                return False
            case Garbled():
                self._fault = Fault.GARBLED
            case Tick() | Fetched():
                self._on_line(line)
            case EngineEvent():
                self._worked_at = self._heard_at
                self._on_line(line)
            case Result() | FailureLine() | Stopped():
                self._last = line
            case _:
                assert_never(line)
        return True

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._ticked_at >= TICK_SECONDS:
            self._ticked_at = now
            if not self._lease.lost:
                self._child.send(Tick())
        self._check_life(now)
        self._act(self._ladder.climb(self._wanted(), now))

    def _check_life(self, now: float) -> None:
        if now - self._heard_at > self._settings.silence_limit_seconds:
            self._fault = self._fault or Fault.FROZEN
        if self._stall_limit_seconds is not None and now - self._worked_at > self._stall_limit_seconds:
            self._fault = self._fault or Fault.STALLED

    def _wanted(self) -> Step:
        if self._lease.lost or self._fault is not None:
            return Step.KILL
        if self._lease.cancel_requested or self._lease.overdue or self._drain.at_once:
            return Step.STOP_NOW
        return Step.STOP_AFTER_BLOCK if self._drain.requested else Step.NONE

    def _act(self, step: Step) -> None:
        match step:
            case Step.NONE:
                pass
            case Step.STOP_AFTER_BLOCK:
                self._child.send(Stop(after_block=True))
            case Step.STOP_NOW:
                self._child.send(Stop())
            case Step.TERM:
                self._child.signal(signal.SIGTERM)
            case Step.KILL:
                self._child.signal(signal.SIGKILL)
            case _:
                assert_never(step)


def _failure_from_line(line: FailureLine) -> Failure:
    return Failure(code=line.code, message=line.message, hint=line.hint, block=line.block, linear=line.linear)
