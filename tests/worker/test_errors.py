"""The error table: every error of core and store has a place in it, and the place decides what is tried again."""

from __future__ import annotations

import errno
from datetime import UTC, datetime

import pytest

from core import errors as core_errors
from store import errors as store_errors
from store.jobs import Attempt, JobError
from worker.errors import (
    RETRY_BY_CODE,
    Retry,
    failure_from,
    judge,
    ran_out_of_memory,
    retry_class,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
# Never seen as a failure: a stop is asked for, a lost lease is not written, and the rest are answers to API calls.
NOT_FAILURES = {"stopped", "wrong_state", "idempotency_conflict", "core_error", "store_error"}


def error(code: str, stage: str = "quantizing", block: int | None = 3) -> JobError:
    return JobError(code=code, message="m", retryable=True, stage=stage, block=block)


def attempt(number: int, failed: JobError) -> Attempt:
    return Attempt(
        job_id="job", number=number, worker_id="w", started_at=NOW, ended_at=NOW, outcome="failed", error=failed
    )


def test_every_known_error_is_in_the_table():
    """No code of core or store falls through to the default by oversight."""
    classes = [value for module in (core_errors, store_errors) for value in vars(module).values()]
    codes = {kind.code for kind in classes if isinstance(kind, type) and issubclass(kind, Exception)}
    codes |= {problem.value for problem in core_errors.ModelProblem}
    codes |= {problem.value for problem in core_errors.CalibrationProblem}
    assert codes - NOT_FAILURES - set(RETRY_BY_CODE) == set()


def test_an_unforeseen_code_counts_as_a_crash():
    assert retry_class("never_heard_of") is Retry.CRASH


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (MemoryError(), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (OSError(errno.EIO, "Input/output error"), "io_error"),
        (KeyError("x"), "internal_error"),
        (core_errors.NumericalError("lin", "d."), "numerical_error"),
        (store_errors.StorageUnavailableError("The store", "away"), "storage_unavailable"),
    ],
)
def test_exceptions_become_codes(raised: Exception, code: str):
    assert failure_from(raised).code == code


@pytest.mark.parametrize("code", ["model_not_found", "invalid_config", "calibration_empty", "poison_job"])
def test_users_input_is_never_tried_again(code: str):
    assert judge(error(code), [], base_seconds=1, cap_seconds=9).delay_seconds is None


def test_infrastructure_waits_longer_each_time_and_never_longer_than_the_cap():
    """The delay doubles with every failure, with jitter below, and is capped."""
    history: list[Attempt] = []
    for failures in range(8):
        verdict = judge(error("storage_unavailable"), history, base_seconds=2, cap_seconds=30)
        full = min(30, 2 * 2**failures)
        assert verdict.delay_seconds is not None
        assert full / 2 <= verdict.delay_seconds <= full
        history.append(attempt(failures + 1, error("storage_unavailable")))


def test_infrastructure_twice_at_one_place_is_no_poison():
    history = [attempt(1, error("storage_unavailable"))]
    assert judge(error("storage_unavailable"), history, base_seconds=1, cap_seconds=9).error.code != "poison_job"


@pytest.mark.parametrize("before", ["child_crashed", "child_hung", "lease_lost"])
def test_two_losses_at_one_block_are_poison(before: str):
    verdict = judge(error("child_killed"), [attempt(1, error(before))], base_seconds=1, cap_seconds=9)
    assert (verdict.error.code, verdict.error.block, verdict.delay_seconds) == ("poison_job", 3, None)


def test_losses_at_two_blocks_are_not_poison():
    """A job that gets further each time is worth another attempt."""
    verdict = judge(error("child_killed"), [attempt(1, error("child_killed", block=2))], base_seconds=1, cap_seconds=9)
    assert verdict.delay_seconds is not None


def test_memory_is_given_one_smaller_attempt():
    first = judge(error("out_of_memory"), [], base_seconds=1, cap_seconds=9)
    assert first.delay_seconds is not None
    history = [attempt(1, error("out_of_memory"))]
    assert ran_out_of_memory(history)
    assert judge(error("out_of_memory"), history, base_seconds=1, cap_seconds=9).delay_seconds is None
