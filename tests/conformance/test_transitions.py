"""Each way out of each state: what row, attempt and event say afterwards, on SQLite and PostgreSQL alike."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from store.errors import LeaseLostError, NotFoundError, WrongStateError
from store.jobs import EventKind, Job, JobProgress, JobState, NewArtifact, Stage
from store.session import Database
from tests.conformance.samples import BROKEN, FILES, claim, submit, submit_and_claim


def _kinds(database: Database, job_id: str) -> list[str]:
    with database.reading() as repository:
        events = repository.list_events(job_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return [event.kind for event in events]


def _outcomes(database: Database, job_id: str) -> list[str | None]:
    with database.reading() as repository:
        return [attempt.outcome for attempt in repository.list_attempts(job_id)]


def _cancelling(database: Database) -> Job:
    job = submit_and_claim(database)
    with database.transaction() as repository:
        return repository.request_cancel(job.id)


def test_heartbeat_renews_and_reports(database: Database) -> None:
    """A heartbeat moves the lease on, stores the progress and raises the version."""
    job = submit_and_claim(database, max_attempts=1)
    eta = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    progress = JobProgress(
        fraction=0.25,
        blocks_done=1,
        blocks_total=4,
        eta_at=eta,
        rss_bytes=5_000_000_000,
        last_linear="q",
        last_loss=0.5,
    )
    with database.transaction() as repository:
        beaten = repository.heartbeat(job.id, job.lease_token, stage=Stage.QUANTIZING, progress=progress)
    assert (beaten.stage, beaten.progress) == (Stage.QUANTIZING, progress)
    assert beaten.version == job.version + 1
    assert beaten.lease_expires_at is not None
    assert job.lease_expires_at is not None
    assert beaten.lease_expires_at > job.lease_expires_at


def test_progress_never_falls_within_an_attempt_and_restarts_with_the_next(database: Database) -> None:
    """A late or wrong report cannot move the fraction back or over 1; a new claim starts at 0."""
    job = submit_and_claim(database)
    shown = []
    for fraction in (0.5, 0.25, 7.0):
        with database.transaction() as repository:
            progress = JobProgress(fraction=fraction, blocks_done=2, blocks_total=4)
            beaten = repository.heartbeat(job.id, job.lease_token, stage=Stage.QUANTIZING, progress=progress)
        shown.append(beaten.progress.fraction)
    assert shown == [0.5, 0.5, 1.0]
    with database.transaction() as repository:
        repository.release(job.id, job.lease_token)
    assert claim(database).progress == JobProgress()


def test_heartbeat_tells_of_a_cancel(database: Database) -> None:
    """While a job is being cancelled its supervisor may still renew the lease, and learns the state by it."""
    job = _cancelling(database)
    with database.transaction() as repository:
        beaten = repository.heartbeat(job.id, job.lease_token, stage=Stage.QUANTIZING, progress=JobProgress())
    assert beaten.state is JobState.CANCELLING


def test_succeed_publishes(database: Database) -> None:
    """Publishing stores files, evaluation and warnings with the final state, and ends the attempt."""
    job = submit_and_claim(database)
    evaluation = {"perplexity": {"float": 10.5, "quantized": 11.25}}
    with database.transaction() as repository:
        done = repository.succeed(job.id, job.lease_token, FILES, evaluation, [{"code": "few_tokens"}])
    assert (done.state, done.stage, done.lease_expires_at, done.worker_id) == (JobState.SUCCEEDED, None, None, None)
    assert (done.progress.fraction, done.evaluation, done.warnings) == (1.0, evaluation, ({"code": "few_tokens"},))
    assert done.finished_at is not None
    with database.reading() as repository:
        files = repository.list_artifacts(job.id)
        assert repository.get_artifact(job.id, files[0].id) == files[0]
    assert [(file.name, file.sha256, file.size_bytes) for file in files] == [
        (file.name, file.sha256, file.size_bytes) for file in FILES
    ]
    assert _kinds(database, job.id) == [EventKind.SUBMITTED, EventKind.CLAIMED, EventKind.SUCCEEDED]
    assert _outcomes(database, job.id) == ["succeeded"]


def test_publish_after_a_cancel_is_refused(database: Database) -> None:
    """A cancel that came first wins: publishing is a wrong state, not a lost lease, and stores no file."""
    job = _cancelling(database)
    with pytest.raises(WrongStateError) as caught, database.transaction() as repository:
        repository.succeed(job.id, job.lease_token, FILES)
    assert caught.value.state == JobState.CANCELLING
    with database.reading() as repository:
        assert repository.list_artifacts(job.id) == ()


def test_failing_publish_leaves_the_job_running(database: Database) -> None:
    """Two files of one name cannot be stored, and then nothing of the publish is."""
    job = submit_and_claim(database)
    twice = [FILES[0], NewArtifact(name=FILES[0].name, sha256="c" * 64, size_bytes=1, media_type="text/plain")]
    with pytest.raises(ValueError, match="twice"), database.transaction() as repository:
        repository.succeed(job.id, job.lease_token, twice)
    with database.reading() as repository:
        assert repository.get_job(job.id) == job
        assert repository.list_artifacts(job.id) == ()


def test_fail_is_final(database: Database) -> None:
    """A fatal error ends the job with the error on it, whatever is left of the retry budget."""
    job = submit_and_claim(database, max_attempts=3)
    with database.transaction() as repository:
        failed = repository.fail(job.id, job.lease_token, BROKEN)
    assert (failed.state, failed.error, failed.failures) == (JobState.FAILED, BROKEN, 1)
    with database.transaction() as repository:
        assert repository.claim("wrk_1", "default") is None
        (attempt,) = repository.list_attempts(job.id)
    assert (attempt.outcome, attempt.error) == ("failed", BROKEN)


def test_drain_is_not_counted(database: Database) -> None:
    """Giving a job back without an error costs nothing of its budget, however often."""
    submit(database, max_attempts=1)
    for number in range(1, 4):
        job = claim(database)
        assert (job.attempt, job.failures) == (number, 0)
        with database.transaction() as repository:
            released = repository.release(job.id, job.lease_token)
        assert (released.state, released.error, released.worker_id) == (JobState.QUEUED, None, None)
    assert _outcomes(database, job.id) == ["released"] * 3


def test_counted_failures_spend_the_budget(database: Database) -> None:
    """With max_attempts 2, the first counted failure queues the job again and the second one fails it."""
    submit(database, max_attempts=2)
    states = []
    for _ in range(2):
        job = claim(database)
        with database.transaction() as repository:
            left = repository.release(job.id, job.lease_token, BROKEN, count_failure=True)
        states.append((left.state, left.failures, left.error))
    assert states == [(JobState.QUEUED, 1, None), (JobState.FAILED, 2, BROKEN)]
    assert _outcomes(database, job.id) == ["failed", "failed"]


def test_counted_failure_needs_its_error(database: Database) -> None:
    """A budget cannot be spent without saying on what."""
    job = submit_and_claim(database)
    with pytest.raises(ValueError, match="error"), database.transaction() as repository:
        repository.release(job.id, job.lease_token, count_failure=True)


def test_cancel_of_a_queued_job_is_immediate_and_idempotent(database: Database) -> None:
    """A queued job is cancelled at once; asking again changes nothing and writes no event."""
    job = submit(database)
    with database.transaction() as repository:
        first = repository.request_cancel(job.id)
    with database.transaction() as repository:
        second = repository.request_cancel(job.id)
    assert first.state is JobState.CANCELLED
    assert second == first
    assert _kinds(database, job.id) == [EventKind.SUBMITTED, EventKind.CANCELLED]


def test_cancel_of_a_running_job_waits_for_its_supervisor(database: Database) -> None:
    """A running job becomes cancelling, keeps its lease, and is cancelled when the supervisor says so."""
    job = _cancelling(database)
    assert job.state is JobState.CANCELLING
    assert job.lease_expires_at is not None
    with database.transaction() as repository:
        assert repository.request_cancel(job.id) == job
        ended = repository.cancelled(job.id, job.lease_token)
    assert (ended.state, ended.worker_id) == (JobState.CANCELLED, None)
    assert _kinds(database, job.id)[-2:] == [EventKind.CANCEL_REQUESTED, EventKind.CANCELLED]
    assert _outcomes(database, job.id) == ["cancelled"]


def test_a_supervisor_cannot_cancel_by_itself(database: Database) -> None:
    """`cancelled` answers a request; without one the job runs on."""
    job = submit_and_claim(database)
    with pytest.raises(WrongStateError), database.transaction() as repository:
        repository.cancelled(job.id, job.lease_token)


@pytest.mark.parametrize("ending", ["fail", "release"])
def test_whatever_ends_a_cancelling_job_cancels_it(database: Database, ending: str) -> None:
    """A failure or a drain while a cancel is under way ends as cancelled: the diagram has no other arrow."""
    job = _cancelling(database)
    with database.transaction() as repository:
        if ending == "fail":
            ended = repository.fail(job.id, job.lease_token, BROKEN)
        else:
            ended = repository.release(job.id, job.lease_token)
    assert (ended.state, ended.error) == (JobState.CANCELLED, None)


@pytest.mark.parametrize("action", ["cancel", "retry"])
def test_finished_jobs_refuse(database: Database, action: str) -> None:
    """A succeeded job can be neither cancelled nor retried; the error names the state."""
    job = submit_and_claim(database)
    with database.transaction() as repository:
        repository.succeed(job.id, job.lease_token, FILES)
    with pytest.raises(WrongStateError) as caught, database.transaction() as repository:
        repository.request_cancel(job.id) if action == "cancel" else repository.retry(job.id)
    assert caught.value.state == JobState.SUCCEEDED


def test_running_job_cannot_be_retried(database: Database) -> None:
    """A retry is for jobs that ended."""
    job = submit_and_claim(database)
    with pytest.raises(WrongStateError), database.transaction() as repository:
        repository.retry(job.id)


def test_retry_gives_a_fresh_budget(database: Database) -> None:
    """A user's retry queues a failed job with no failures and no error; the attempt numbers go on."""
    job = submit_and_claim(database, max_attempts=1)
    with database.transaction() as repository:
        repository.fail(job.id, job.lease_token, BROKEN)
    with database.transaction() as repository:
        retried = repository.retry(job.id)
        assert repository.retry(job.id) == retried
    assert (retried.state, retried.failures, retried.error, retried.finished_at) == (JobState.QUEUED, 0, None, None)
    again = claim(database)
    assert (again.attempt, again.lease_token) == (2, 2)
    assert _kinds(database, job.id)[-2:] == [EventKind.RETRIED, EventKind.CLAIMED]


def test_rescue_queues_an_expired_job_and_fences_its_worker(database: Database) -> None:
    """A silent worker's job goes back to the queue with one more failure, and the worker's token is void."""
    submit(database)
    job = claim(database, lease_seconds=-1)
    with database.transaction() as repository:
        assert repository.rescue_expired() == (job.id,)
    with database.transaction() as repository:
        assert repository.rescue_expired() == ()
        rescued = repository.get_job(job.id)
    assert (rescued.state, rescued.failures, rescued.worker_id) == (JobState.QUEUED, 1, None)
    assert _outcomes(database, job.id) == ["lease_lost"]
    with pytest.raises(LeaseLostError), database.transaction() as repository:
        repository.heartbeat(job.id, job.lease_token, stage=Stage.PACKING, progress=JobProgress())


def test_rescue_fails_a_job_whose_budget_is_spent(database: Database) -> None:
    """The last lost lease fails the job, and the error says what was lost and when."""
    submit(database, max_attempts=1)
    job = claim(database, lease_seconds=-1)
    with database.transaction() as repository:
        repository.rescue_expired()
    with database.reading() as repository:
        failed = repository.get_job(job.id)
    assert failed.state is JobState.FAILED
    assert failed.error is not None
    assert (failed.error.code, failed.error.attempt, failed.error.stage) == ("lease_lost", 1, "preflight")


def test_rescue_finishes_a_cancel(database: Database) -> None:
    """If the supervisor of a job that is being cancelled dies, the sweeper cancels the job."""
    submit(database)
    job = claim(database, lease_seconds=-1)
    with database.transaction() as repository:
        repository.request_cancel(job.id)
        assert repository.rescue_expired() == (job.id,)
        assert repository.get_job(job.id).state is JobState.CANCELLED


def test_rescue_leaves_live_leases(database: Database) -> None:
    """A lease that has not run out is nobody's to take."""
    job = submit_and_claim(database)
    with database.transaction() as repository:
        assert repository.rescue_expired() == ()
        assert repository.get_job(job.id) == job


def test_late_heartbeat_keeps_a_job_that_nobody_took(database: Database) -> None:
    """A lease that ran out but was not taken can be renewed: no one else has worked on the job."""
    submit(database)
    job = claim(database, lease_seconds=-1)
    with database.transaction() as repository:
        repository.heartbeat(job.id, job.lease_token, stage=Stage.PREFLIGHT, progress=JobProgress())
        assert repository.rescue_expired() == ()


def test_worker_events_join_the_same_sequence(database: Database) -> None:
    """A worker's events are numbered with the transitions', and cannot pretend to be one."""
    job = submit_and_claim(database)
    with database.transaction() as repository:
        event = repository.add_event(job.id, job.lease_token, "block_quantized", {"block": 0})
    assert (event.seq, event.attempt, event.payload) == (3, 1, {"block": 0})
    with pytest.raises(ValueError, match="transitions"), database.transaction() as repository:
        repository.add_event(job.id, job.lease_token, "succeeded", {})


def test_resolved_is_stored(database: Database) -> None:
    """What the worker found out about the inputs is on the job from then on."""
    job = submit_and_claim(database)
    with database.transaction() as repository:
        repository.set_resolved(job.id, job.lease_token, {"model_sha": "abc"})
    with database.reading() as repository:
        assert repository.get_job(job.id).resolved == {"model_sha": "abc"}


def test_unknown_job_is_not_found_or_lost(database: Database) -> None:
    """Users get "no such job", workers "the lease is lost"."""
    with pytest.raises(NotFoundError), database.transaction() as repository:
        repository.request_cancel("job_none")
    with pytest.raises(LeaseLostError), database.transaction() as repository:
        repository.fail("job_none", 1, BROKEN)


def test_rolled_back_transaction_leaves_nothing(database: Database) -> None:
    """An exception inside the transaction takes the job's event and its number with it."""
    job = submit_and_claim(database)

    def write_and_stop() -> None:
        with database.transaction() as repository:
            repository.add_event(job.id, job.lease_token, "one", {})
            raise KeyError("stop")

    with pytest.raises(KeyError):
        write_and_stop()
    with database.transaction() as repository:
        assert repository.add_event(job.id, job.lease_token, "two", {}).seq == 3
