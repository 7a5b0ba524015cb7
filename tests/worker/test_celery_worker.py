"""The worker as a process of its own: wake-ups, drain, death and rescue, on both brokers and both databases."""

from __future__ import annotations

import fcntl
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from store.jobs import JobState
from store.session import Database
from tests.ops.service import wait_until
from tests.worker.bench import Bench, finished, quantizing
from tests.worker.celery_worker import celery_worker
from worker.kernels import kernel_folder, lock_of
from worker.services import open_services
from worker.settings import WorkerSettings


@pytest.fixture(params=["embedded", "scaled"])
def deployed(request: pytest.FixtureRequest, settings: WorkerSettings, tiny_model: Path) -> Iterator[Bench]:
    """A bench on SQLite with the filesystem broker, or on PostgreSQL with Redis."""
    if request.param == "scaled":
        urls = {
            "database_url": request.getfixturevalue("postgres_url"),
            "broker_url": request.getfixturevalue("redis_url"),
        }
        settings = settings.model_copy(update=urls)
    database = Database(settings.database_url)
    database.upgrade()
    database.dispose()
    services = open_services(settings)
    yield Bench(services, tiny_model)
    services.database.dispose()
    services.waker.close()


def left_by(cache_dir: Path, version: str) -> Path:
    """Makes a folder of kernels whose worker has ended."""
    folder = cache_dir / "numba" / version
    folder.mkdir(parents=True)
    lock_of(folder).touch()
    return folder


def test_a_submitted_job_runs_by_itself(deployed: Bench, tmp_path: Path):
    """With or without a wake-up, a queued job is found, worked and published by a worker that was already idle.

    It starts with the kernels of its own version alone, and nobody can take those from it.
    """
    settings = deployed.services.settings
    other = left_by(settings.cache_dir, "0123456789ab")
    with celery_worker(settings, tmp_path / "worker.log") as worker:
        woken = deployed.submit().id
        assert deployed.services.waker.wake("default", woken)
        deployed.wait(woken, finished)
        unannounced = deployed.submit().id
        deployed.wait(unannounced, finished)
        assert [deployed.job(job_id).state for job_id in (woken, unannounced)] == [JobState.SUCCEEDED] * 2
        assert not other.exists()
        with lock_of(kernel_folder(settings.cache_dir)).open("ab") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        worker.signal(signal.SIGTERM)
        assert worker.wait(60) == 0
        assert "Traceback" not in worker.log, worker.log


def test_term_drains_and_the_next_worker_goes_on(deployed: Bench, tmp_path: Path):
    """TERM ends a busy worker behind its block; the job goes back uncounted and another worker finishes it."""
    settings = deployed.services.settings
    job_id = deployed.submit(block_seconds=0.5).id
    with celery_worker(settings, tmp_path / "first.log") as worker:
        deployed.wait(job_id, quantizing(1))
        [child] = worker.children()
        worker.signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    assert not child.is_running()
    job = deployed.job(job_id)
    assert (job.state, job.failures, job.attempt) == (JobState.QUEUED, 0, 1)
    with celery_worker(settings, tmp_path / "second.log"):
        job = deployed.wait(job_id, finished)
    assert (job.state, job.failures, job.attempt) == (JobState.SUCCEEDED, 0, 2)


def test_a_killed_worker_leaves_no_child_and_its_job_is_rescued(deployed: Bench, tmp_path: Path):
    """After kill -9 the child dies with its parent; another worker takes the job back and goes on."""
    settings = deployed.services.settings
    job_id = deployed.submit(block_seconds=0.5).id
    with celery_worker(settings, tmp_path / "first.log") as worker:
        deployed.wait(job_id, quantizing(2))
        [child] = worker.children()
        worker.kill()
        assert _gone(child, 60)
    with celery_worker(settings, tmp_path / "second.log"):
        job = deployed.wait(job_id, finished)
    assert (job.state, job.failures, job.attempt) == (JobState.SUCCEEDED, 1, 2)
    with deployed.services.database.reading() as repository:
        events = repository.list_events(job_id)
        attempts = repository.list_attempts(job_id)
    resumed = [event.payload["blocks_resumed"] for event in events if event.kind == "run_started"]
    assert resumed[0] == 0
    assert resumed[1] >= 2
    assert [attempt.outcome for attempt in attempts] == ["lease_lost", "succeeded"]


def test_a_second_term_does_not_wait(bench: Bench, tmp_path: Path):
    """TERM twice ends a worker whose block would take minutes; nothing is left running and nothing is counted."""
    job_id = bench.submit(block_seconds=120).id
    with celery_worker(bench.services.settings, tmp_path / "worker.log") as worker:
        bench.wait(job_id, lambda job: job.progress.blocks_total == 8)
        [child] = worker.children()
        worker.signal(signal.SIGTERM)
        wait_until(lambda: "Warm shutdown" in worker.log, 60)  # two signals at once would be one
        worker.signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    assert not child.is_running()
    job = bench.job(job_id)
    assert (job.state, job.failures) == (JobState.QUEUED, 0)


def test_a_cancel_through_the_database_reaches_the_child(bench: Bench, tmp_path: Path):
    """A cancel that the API writes is noticed by the worker within a moment."""
    job_id = bench.submit(block_seconds=120).id
    with celery_worker(bench.services.settings, tmp_path / "worker.log"):
        bench.wait(job_id, lambda job: job.progress.blocks_total == 8)
        with bench.services.database.transaction() as repository:
            repository.request_cancel(job_id)
        assert bench.wait(job_id, finished).state is JobState.CANCELLED


def _gone(process: psutil.Process, seconds: float) -> bool:
    try:
        process.wait(seconds)
    except psutil.TimeoutExpired:
        return False
    return True
