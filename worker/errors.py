"""The worker's one error table: every way in which an attempt can end badly becomes a code and a retry class.

Core and store errors, operating system errors and the deaths of a child all pass through here; nowhere else does the
worker decide what is tried again.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from core.errors import CalibrationProblem, CoreError, ModelProblem
from store.errors import StoreError
from store.jobs import DEADLINE_EXCEEDED, Attempt, Job, JobError, deadline_exceeded


class Retry(StrEnum):
    """What another attempt could change."""

    NEVER = "never"
    """The user's input, the model or the loaders decide: the same attempt ends the same way."""
    SMALLER = "smaller"
    """Memory ran out: one more attempt that holds less at a time, then never."""
    CRASH = "crash"
    """The child died or failed in an unforeseen way: again, unless it was lost at the same place before."""
    BACKOFF = "backoff"
    """The surroundings failed (disk, network, database): again, later, while failures are left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One bad ending. code is stable and keyed in RETRY_BY_CODE; block and linear where they are known."""

    code: str
    message: str
    hint: str = ""
    block: int | None = None
    linear: str | None = None


class AttemptFailedError(Exception):
    """This attempt cannot go on, for the reason in `failure`."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.message)


class StopReason(StrEnum):
    """Who asked a running attempt to stop."""

    CANCEL = "cancel"
    DRAIN = "drain"


class AttemptStoppedError(Exception):
    """The attempt stopped because it was asked to; nothing failed."""

    def __init__(self, reason: StopReason) -> None:
        self.reason = reason
        super().__init__(f"The attempt stopped: {reason}.")


# Written by the sweeper for a worker that fell silent; for the job it is a loss at its place, like a crash.
LEASE_LOST = "lease_lost"

RETRY_BY_CODE: Mapping[str, Retry] = {
    **dict.fromkeys((problem.value for problem in ModelProblem), Retry.NEVER),
    **dict.fromkeys((problem.value for problem in CalibrationProblem), Retry.NEVER),
    "invalid_config": Retry.NEVER,
    "target_incompatible": Retry.NEVER,
    "numerical_error": Retry.NEVER,
    "not_found": Retry.NEVER,
    "artifact_degenerate": Retry.NEVER,
    "blob_corrupt": Retry.NEVER,
    "model_revision_not_found": Retry.NEVER,
    "model_forbidden": Retry.NEVER,
    "spec_invalid": Retry.NEVER,
    "missing_package": Retry.NEVER,
    "quota_exceeded": Retry.NEVER,
    "transfer_refused": Retry.NEVER,
    "secret_key_required": Retry.NEVER,
    "secret_unreadable": Retry.NEVER,
    "out_of_memory": Retry.SMALLER,
    "artifact_invalid": Retry.CRASH,
    "child_crashed": Retry.CRASH,
    "child_exited": Retry.CRASH,
    "child_hung": Retry.CRASH,
    "child_killed": Retry.CRASH,
    "child_protocol": Retry.CRASH,
    "internal_error": Retry.CRASH,
    LEASE_LOST: Retry.CRASH,
    "resume_refused": Retry.CRASH,
    "disk_full": Retry.BACKOFF,
    "hub_unavailable": Retry.BACKOFF,
    "insufficient_resources": Retry.BACKOFF,
    "io_error": Retry.BACKOFF,
    "storage_unavailable": Retry.BACKOFF,
    "work_folder_busy": Retry.BACKOFF,
    "poison_job": Retry.NEVER,
    DEADLINE_EXCEEDED: Retry.NEVER,
}
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def retry_class(code: str) -> Retry:
    """Returns the retry class of a code; a code that the table does not know was not foreseen, so it is a crash."""
    return RETRY_BY_CODE.get(code, Retry.CRASH)


def retryable(code: str) -> bool:
    """Whether another attempt could end better."""
    return retry_class(code) is not Retry.NEVER


def failure_from(error: BaseException) -> Failure:
    """Turns an exception into a failure, in the child as well as in the supervisor."""
    if isinstance(error, AttemptFailedError):
        return error.failure
    if isinstance(error, CoreError | StoreError):
        linear = getattr(error, "linear", None)
        return Failure(code=error.code, message=str(error), hint=getattr(error, "hint", ""), linear=linear)
    if isinstance(error, MemoryError) or _torch_ran_out(error):
        return Failure(
            code="out_of_memory",
            message=f"The engine ran out of memory: {error}".rstrip(": "),
            hint="Use fewer or shorter calibration windows, or a worker with more memory.",
        )
    if isinstance(error, OSError):
        return _failure_from_os(error)
    return Failure(
        code="internal_error",
        message=f"{type(error).__name__}: {error}",
        hint="This was not foreseen; the worker's log has the traceback.",
    )


def overdue(job: Job) -> AttemptFailedError:
    """Returns the failure of an attempt that the job's deadline has ended."""
    error = deadline_exceeded(job)
    return AttemptFailedError(Failure(code=error.code, message=error.message, hint=error.hint))


def _torch_ran_out(error: BaseException) -> bool:
    # torch raises a plain RuntimeError from its CPU allocator; the child must not need torch to look at an error.
    return type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)


def _failure_from_os(error: OSError) -> Failure:
    if error.errno in DISK_FULL:
        return Failure(
            code="disk_full", message=f"The disk is full: {error}.", hint="Free space in the data directory."
        )
    return Failure(code="io_error", message=f"Reading or writing failed: {error}.", hint="Look at the data directory.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What happens to the job after a failure. delay_seconds is None where the job fails for good."""

    error: JobError
    delay_seconds: float | None


def judge(error: JobError, history: Sequence[Attempt], *, base_seconds: float, cap_seconds: float) -> Verdict:
    """Decides whether a failed attempt is followed by another one.

    Args:
        error: the failure, with its attempt number, stage and block.
        history: the job's earlier attempts.
        base_seconds: the delay after the first failure; it doubles with each one, up to cap_seconds, with jitter.
        cap_seconds: the longest delay.
    """
    retry = retry_class(error.code)
    if retry is Retry.NEVER or (retry is Retry.SMALLER and ran_out_of_memory(history)):
        return Verdict(error=error, delay_seconds=None)
    if retry is Retry.CRASH and lost_here_before(error, history):
        return Verdict(error=poisoned(error), delay_seconds=None)
    failures = sum(1 for attempt in history if attempt.error is not None)
    delay = min(cap_seconds, base_seconds * 2.0**failures) * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load
    return Verdict(error=error, delay_seconds=delay)


def ran_out_of_memory(history: Sequence[Attempt]) -> bool:
    """Whether an earlier attempt ran out of memory, so that this one must hold less at a time."""
    return any(attempt.error is not None and attempt.error.code == "out_of_memory" for attempt in history)


def lost_here_before(error: JobError, history: Sequence[Attempt]) -> bool:
    """Whether the attempt before this one was also lost, at the same stage and block.

    Workers are also killed for reasons of their own: a lost lease speaks against the job only at a block.
    """
    last = next((attempt.error for attempt in reversed(history) if attempt.error is not None), None)
    if last is None or (last.stage, last.block) != (error.stage, error.block):
        return False
    pair = {retry_class(last.code), retry_class(error.code)}
    return pair == {Retry.CRASH} and (error.block is not None or LEASE_LOST not in {last.code, error.code})


def poisoned(error: JobError) -> JobError:
    """Returns the final error of a job that is lost at the same place each time."""
    place = f"stage {error.stage}" if error.block is None else f"block {error.block}"
    return JobError(
        code="poison_job",
        message=f"Two attempts in a row were lost at {place}. The last one: {error.message}",
        retryable=False,
        hint=error.hint,
        stage=error.stage,
        block=error.block,
        linear=error.linear,
        attempt=error.attempt,
    )
