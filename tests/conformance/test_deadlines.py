"""A job past its deadline: nobody claims it, the sweep fails it, a retry starts anew; on both databases alike."""

from __future__ import annotations

from datetime import timedelta

from store.jobs import EventKind, Job, JobState
from store.session import Database
from tests.conformance.samples import BROKEN, claim, submit, submit_and_claim

PAST, FAR = -1, 3600


def swept(database: Database) -> tuple[str, ...]:
    """Returns the jobs that a sweep has failed."""
    with database.transaction() as repository:
        return repository.fail_overdue()


def read(database: Database, job: Job) -> Job:
    """Reads a job again."""
    with database.reading() as repository:
        return repository.get_job(job.id)


def test_a_deadline_counts_from_the_submit(database: Database) -> None:
    """By the database's clock; without one there is none."""
    job = submit(database, deadline_seconds=FAR)
    assert job.deadline_at is not None
    assert abs(job.deadline_at - job.created_at - timedelta(seconds=FAR)) < timedelta(milliseconds=5)
    assert submit(database).deadline_at is None


def test_a_waiting_job_fails_at_its_deadline(database: Database) -> None:
    """Once, with the code and the event that say so, and no worker has it in between."""
    late, early = submit(database, deadline_seconds=PAST), submit(database, deadline_seconds=FAR)
    free = submit(database)
    with database.reading() as repository:
        assert repository.queued_counts() == {"default": 2}
    assert swept(database) == (late.id,)
    assert swept(database) == ()
    failed = read(database, late)
    assert failed.state is JobState.FAILED
    assert failed.error is not None
    assert (failed.error.code, failed.error.retryable, failed.error.attempt) == ("deadline_exceeded", False, None)
    assert (failed.attempt, failed.failures) == (0, 0)
    with database.reading() as repository:
        events = repository.list_events(late.id)
    assert [event.kind for event in events] == [EventKind.SUBMITTED, EventKind.FAILED]
    assert events[-1].payload["error"]["code"] == "deadline_exceeded"
    assert {claim(database).id, claim(database).id} == {early.id, free.id}


def test_an_overdue_job_is_not_claimed(database: Database) -> None:
    """Also not by a worker that comes between two sweeps."""
    submit(database, deadline_seconds=PAST)
    with database.transaction() as repository:
        assert repository.claim("wrk_test", "default") is None


def test_a_held_job_is_its_workers_to_end(database: Database) -> None:
    """The sweep leaves it; where its worker is silent too, it goes back to the queue and fails there."""
    submit(database, deadline_seconds=1)
    job = claim(database, lease_seconds=-1)
    assert job.deadline_at is not None
    assert swept(database) == ()
    with database.transaction() as repository:
        assert repository.rescue_expired() == (job.id,)
    _wait_until_overdue(database)
    assert swept(database) == (job.id,)
    with database.reading() as repository:
        assert [attempt.outcome for attempt in repository.list_attempts(job.id)] == ["lease_lost"]


def _wait_until_overdue(database: Database) -> None:
    """Waits by the database's own clock: nothing is claimable any more."""
    while True:
        with database.reading() as repository:
            if not repository.queued_counts():
                return


def test_a_finished_job_has_no_deadline_left(database: Database) -> None:
    """Neither success nor a cancel is taken back."""
    job = submit_and_claim(database, deadline_seconds=FAR)
    with database.transaction() as repository:
        repository.fail(job.id, job.lease_token, BROKEN)
    cancelled = submit(database, deadline_seconds=PAST)
    with database.transaction() as repository:
        repository.request_cancel(cancelled.id)
    assert swept(database) == ()


def test_a_retry_starts_a_new_deadline(database: Database) -> None:
    """Of the same length, from the retry on."""
    job = submit(database, deadline_seconds=PAST)
    swept(database)
    with database.transaction() as repository:
        retried = repository.retry(job.id)
    assert (retried.state, retried.error, retried.deadline_seconds) == (JobState.QUEUED, None, PAST)
    assert retried.deadline_at is not None
    assert job.deadline_at is not None
    assert retried.deadline_at > job.deadline_at
