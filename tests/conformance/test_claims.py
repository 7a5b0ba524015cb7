"""Who gets which job, and that nobody else does, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from store.errors import LeaseLostError, WrongStateError
from store.jobs import Checkpoint, EventKind, Job, JobProgress, JobState, Stage
from store.repository import Repository
from store.session import Database
from tests.conformance.samples import BROKEN, FILES, claim, new_job, submit, submit_and_claim

THREADS = 8
JOBS = 24


def test_claim_starts_an_attempt(database: Database) -> None:
    """A claim makes the job running, numbers the attempt, and gives a lease by the database's clock."""
    submitted = submit(database)
    job = claim(database, "wrk_1", lease_seconds=60)
    assert (job.id, job.state, job.stage) == (submitted.id, JobState.RUNNING, Stage.PREFLIGHT)
    assert (job.attempt, job.lease_token, job.worker_id) == (1, 1, "wrk_1")
    assert job.started_at is not None
    assert job.heartbeat_at is not None
    assert job.lease_expires_at is not None
    assert (job.lease_expires_at - job.heartbeat_at).total_seconds() == pytest.approx(60, abs=0.01)
    with database.reading() as repository:
        (attempt,) = repository.list_attempts(job.id)
    assert (attempt.number, attempt.worker_id, attempt.ended_at, attempt.outcome) == (1, "wrk_1", None, None)


def test_no_work_is_none(database: Database) -> None:
    """Without an eligible job of the class, a claim returns None and changes nothing."""
    submit(database, queue_class="gpu")
    with database.transaction() as repository:
        assert repository.claim("wrk_1", "default") is None
        assert repository.queued_counts() == {"gpu": 1}


def test_priority_then_age(database: Database) -> None:
    """The higher priority goes first, and among equals the older job."""
    first, second = submit(database), submit(database)
    urgent = submit(database, priority=5)
    assert [claim(database).id for _ in range(3)] == [urgent.id, first.id, second.id]


def test_owner_with_fewer_running_jobs_goes_first(database: Database) -> None:
    """Among equal priorities nobody's burst starves another owner's single job."""
    burst = [submit(database, "key_a") for _ in range(3)]
    single = submit(database, "key_b")
    assert [claim(database).id for _ in range(4)] == [burst[0].id, single.id, burst[1].id, burst[2].id]


def test_a_thousand_jobs_do_not_starve_another_owners_first(database: Database) -> None:
    """Owners take turns, also where one worker takes one job at a time and nobody has a job at work in between."""
    with database.transaction() as repository:
        crowd = [repository.add_job(new_job("key_crowd"))[0].id for _ in range(1000)]
        late = [repository.add_job(new_job("key_late"))[0].id for _ in range(2)]
        later = repository.add_job(new_job("key_later"))[0].id
        expected = [crowd[0], late[0], later, crowd[1], late[1]]
        places = [repository.queue_position(job_id).position for job_id in expected]
    assert places == [1, 2, 3, 4, 5]
    assert [_work(database) for _ in range(6)] == [*expected, crowd[2]]
    with database.reading() as repository:
        assert repository.queue_position(crowd[-1]).position == 997


def test_turns_are_kept_by_queue_class(database: Database) -> None:
    """A turn on one kind of worker is no turn on another."""
    first = [submit(database, "key_a", queue_class=name).id for name in ("gpu", "default")]
    second = submit(database, "key_b").id
    with database.transaction() as repository:
        taken = repository.claim("wrk_gpu", "gpu")
        assert taken is not None
        repository.succeed(taken.id, taken.lease_token, FILES)
    assert [taken.id, _work(database), _work(database)] == [*first, second]


def _work(database: Database) -> str:
    """Claims the next job and ends it; returns its id."""
    job = claim(database)
    with database.transaction() as repository:
        repository.succeed(job.id, job.lease_token, FILES)
    return job.id


def test_released_job_waits_for_its_delay(database: Database) -> None:
    """A job that was given back with a delay is not eligible before the delay is over."""
    job = submit_and_claim(database)
    with database.transaction() as repository:
        repository.release(job.id, job.lease_token, delay_seconds=3600)
        assert repository.queued_counts() == {}
        assert repository.claim("wrk_1", "default") is None


def _claim_until_empty(database: Database, start: threading.Barrier, worker_id: str) -> list[Job]:
    start.wait()
    claimed: list[Job] = []
    while True:
        with database.transaction() as repository:
            job = repository.claim(worker_id, "default")
        if job is None:
            return claimed
        claimed.append(job)


def test_concurrent_claims_take_each_job_once(database: Database) -> None:
    """Many workers claiming at once get every job, and no job twice."""
    submitted = {submit(database, owner=f"key_{number % 3}").id for number in range(JOBS)}
    start = threading.Barrier(THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        runs = [pool.submit(_claim_until_empty, database, start, f"wrk_{number}") for number in range(THREADS)]
        claimed = [job for run in runs for job in run.result()]
    assert len(claimed) == JOBS
    assert {job.id for job in claimed} == submitted
    assert {(job.attempt, job.lease_token) for job in claimed} == {(1, 1)}


def test_concurrent_claims_of_one_job_have_one_winner(database: Database) -> None:
    """The same wake-up delivered to many threads claims the job once; each attempt and event exists once."""
    job = submit(database)
    start = threading.Barrier(THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        runs = [pool.submit(_claim_until_empty, database, start, f"wrk_{number}") for number in range(THREADS)]
        assert sum(len(run.result()) for run in runs) == 1
    with database.reading() as repository:
        assert len(repository.list_attempts(job.id)) == 1
        assert [event.kind for event in repository.list_events(job.id)] == [EventKind.SUBMITTED, EventKind.CLAIMED]


def test_cancel_races_succeed_with_one_outcome(database: Database) -> None:
    """However a cancel and a publish interleave, the job is either published or to be cancelled, never both."""
    for _ in range(10):
        job, start = submit_and_claim(database), threading.Barrier(2)
        with ThreadPoolExecutor(2) as pool:
            runs = [pool.submit(_outcome, database, job, action, start) for action in ("cancel", "publish")]
            assert sum(run.result() is not None for run in runs) == 1
        with database.transaction() as repository:
            published = len(repository.list_artifacts(job.id)) > 0
            assert repository.get_job(job.id).state is (JobState.SUCCEEDED if published else JobState.CANCELLING)
            if not published:
                repository.cancelled(job.id, job.lease_token)


def _outcome(database: Database, job: Job, action: str, start: threading.Barrier) -> JobState | None:
    """Returns the new state, or None where the other one came first."""
    start.wait()
    try:
        with database.transaction() as repository:
            if action == "cancel":
                return repository.request_cancel(job.id).state
            return repository.succeed(job.id, job.lease_token, FILES).state
    except WrongStateError:
        return None


CHECKPOINT = Checkpoint(block=0, fingerprint="f", sha256="c" * 64, size_bytes=3, record={})
STALE_WRITES: tuple[Callable[[Repository, str, int], object], ...] = (
    lambda repository, job, token: repository.heartbeat(job, token, stage=Stage.PACKING, progress=JobProgress()),
    lambda repository, job, token: repository.add_event(job, token, "block_quantized", {}),
    lambda repository, job, token: repository.record_linears(job, token, []),
    lambda repository, job, token: repository.set_resolved(job, token, {}),
    lambda repository, job, token: repository.succeed(job, token, FILES),
    lambda repository, job, token: repository.fail(job, token, BROKEN),
    lambda repository, job, token: repository.cancelled(job, token),
    lambda repository, job, token: repository.release(job, token),
    lambda repository, job, token: repository.record_checkpoint(job, token, CHECKPOINT),
)


def test_stale_token_changes_nothing(database: Database) -> None:
    """After another claim, every write under the old token raises LeaseLostError and leaves the row as it is."""
    old = submit_and_claim(database)
    with database.transaction() as repository:
        repository.release(old.id, old.lease_token)
    new = claim(database, "wrk_2")
    for write in STALE_WRITES:
        with pytest.raises(LeaseLostError), database.transaction() as repository:
            write(repository, old.id, old.lease_token)
    with database.reading() as repository:
        assert repository.get_job(old.id) == new
