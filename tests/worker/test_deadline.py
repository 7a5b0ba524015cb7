"""A running job's deadline, by the real supervisor with a real child process."""

from __future__ import annotations

import time

import pytest

from store.jobs import JobState
from tests.worker.bench import Bench, worker_children


@pytest.mark.parametrize("plan", [{"block_seconds": 5}, {"fault": "stall", "block": 1}], ids=["working", "deaf"])
def test_a_running_job_is_stopped_at_its_deadline(bench: Bench, plan: dict[str, object]):
    """By its own stop, or by the rungs after it; it fails for good, and nothing of it is left."""
    job_id = bench.submit(deadline_seconds=4, **plan).id
    assert bench.work() == job_id
    job = bench.job(job_id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert (job.error.code, job.error.retryable, job.error.attempt) == ("deadline_exceeded", False, 1)
    assert job.deadline_at is not None
    assert job.finished_at is not None
    assert job.finished_at >= job.deadline_at
    with bench.services.database.reading() as repository:
        assert [attempt.outcome for attempt in repository.list_attempts(job_id)] == ["failed"]
    assert not bench.folder_left(job_id)
    assert not worker_children()
    assert bench.work() is None


def test_a_retry_has_the_whole_time_again(bench: Bench):
    """The second run is quick and ends well, although the first deadline is long past."""
    job_id = bench.submit(deadline_seconds=20).id
    with bench.services.database.transaction() as repository:
        repository.request_cancel(job_id)
    first = bench.job(job_id).deadline_at
    time.sleep(0.01)
    with bench.services.database.transaction() as repository:
        second = repository.retry(job_id).deadline_at
    assert first is not None
    assert second is not None
    assert second > first
    bench.work()
    assert bench.job(job_id).state is JobState.SUCCEEDED
