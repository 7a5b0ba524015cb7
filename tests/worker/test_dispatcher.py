"""The sweep: what it wakes, what it takes back, what it removes, and when it ends its own process."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from store.jobs import JobState
from store.queue import make_celery
from store.workers import Needs
from tests.conformance.samples import new_job
from tests.worker.bench import OWNER, Bench, quantizing
from worker.dispatcher import Dispatcher
from worker.settings import WorkerSettings


def dispatcher(bench: Bench, **changes: object) -> Dispatcher:
    settings: WorkerSettings = bench.services.settings.model_copy(update=changes)
    return Dispatcher(replace(bench.services, settings=settings), make_celery(settings), settings.queue_classes)


def messages(bench: Bench) -> list[Path]:
    return list((bench.services.settings.broker_dir / "messages").glob("*.default.msg"))


def test_wake_ups_outstanding_never_exceed_free_slots_and_one(bench: Bench):
    """However many jobs wait and however often the sweep runs, the broker holds one wake-up more than can be used."""
    for _ in range(5):
        bench.submit()
    swept = dispatcher(bench)
    for _ in range(4):
        swept.sweep()
    assert len(messages(bench)) == 2


def test_a_lost_wake_up_is_sent_again(bench: Bench):
    """The broker may forget everything: the next sweep finds the job in the database."""
    bench.submit()
    swept = dispatcher(bench)
    swept.sweep()
    for message in messages(bench):
        message.unlink()
    swept.sweep()
    assert len(messages(bench)) == 1


def test_nothing_is_woken_without_work_without_a_slot_or_while_draining(bench: Bench):
    swept = dispatcher(bench)
    swept.sweep()
    bench.submit()
    with bench.services.slots:
        swept.sweep()
    bench.services.drain.request()
    swept.sweep()
    assert messages(bench) == []


def test_an_expired_lease_is_taken_back(bench: Bench):
    """A running job whose worker is silent past its lease is queued again by any worker's sweep."""
    job_id = bench.submit().id
    with bench.services.database.transaction() as repository:
        assert repository.claim("dead", "default", lease_seconds=-1) is not None
    dispatcher(bench).sweep()
    job = bench.job(job_id)
    assert (job.state, job.failures) == (JobState.QUEUED, 1)


def test_only_folders_of_jobs_that_are_over_are_removed(bench: Bench):
    """Queued and running jobs keep what they can resume from; the rest of the disk comes back."""
    root = bench.services.settings.work_root
    queued, cancelled = bench.submit().id, bench.submit().id
    with bench.services.database.transaction() as repository:
        repository.request_cancel(cancelled, OWNER)
    for name in (queued, cancelled, "job_unknown", ".trash-half-removed"):
        (root / name / "blocks").mkdir(parents=True)
    dispatcher(bench).tidy()
    assert [entry.name for entry in root.iterdir()] == [queued]


def test_bytes_that_nothing_refers_to_are_removed_after_their_grace(bench: Bench):
    sha256, _ = bench.services.artifacts.put_bytes(b"left behind")
    dispatcher(bench).free_blobs()
    assert bench.services.artifacts.exists(sha256)
    dispatcher(bench, blob_grace_seconds=-1).free_blobs()
    assert not bench.services.artifacts.exists(sha256)


def test_a_worker_whose_consumer_is_dead_ends_itself(bench: Bench):
    """Work waits, the broker takes wake-ups, a slot is free, and nothing arrives: the process asks for its own end."""
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))
    try:
        bench.submit()
        swept = dispatcher(bench, idle_exit_seconds=0.001)
        swept.sweep()
        assert heard == []
        swept.sweep()
        # The kernel may hand the signal to another thread of the process, and then it takes a moment to be heard here.
        deadline = time.monotonic() + 60
        while not heard and time.monotonic() < deadline:
            time.sleep(0.01)
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_worker_that_receives_stays(bench: Bench):
    """A wake-up that came in between shows that the consumer lives, even if the job went to another worker."""
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))
    try:
        bench.submit()
        swept = dispatcher(bench, idle_exit_seconds=0.001)
        for _ in range(3):
            swept.sweep()
            with bench.services.slots:
                pass
        assert heard == []
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("reads", [0, 1])
def test_the_thread_starts_and_stops(bench: Bench, reads: int):
    """Stopping returns once no sweep is under way, also right after the start."""
    swept = dispatcher(bench)
    swept.start()
    for _ in range(reads):
        bench.services.work_done.set()
    swept.stop()


def test_a_worker_is_registered_while_it_runs_and_drains_when_asked(bench: Bench):
    """It shows up, gives its job back uncounted when an operator drains it, takes it again, and leaves at its end."""
    job_id = bench.submit(block_seconds=0.2).id
    running = dispatcher(bench, heartbeat_seconds=0.1)
    running.start()
    database, worker_id = bench.services.database, bench.services.worker_id
    try:
        thread = bench.work_behind()
        bench.wait(job_id, quantizing(1))
        with database.transaction() as repository:
            worker = repository.drain_worker(worker_id, drain=True)
        assert (worker.live, worker.jobs) == (True, (job_id,))
        assert worker.facts.capability.memory_bytes > 0
        thread.join(60)
        job = bench.job(job_id)
        assert (job.state, job.failures) == (JobState.QUEUED, 0)
        assert bench.work() is None
        with database.transaction() as repository:
            repository.drain_worker(worker_id, drain=False)
        deadline = time.monotonic() + 120
        while bench.work() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert bench.job(job_id).state is JobState.SUCCEEDED
    finally:
        running.stop()
    with database.reading() as repository:
        assert repository.list_workers() == ()


def test_a_job_that_does_not_fit_wakes_nobody(bench: Bench):
    """Or a worker that hears of nothing it could take would be held for dead."""
    with bench.services.database.transaction() as repository:
        new = replace(new_job(OWNER), needs=Needs(memory_bytes=2**60))
        repository.add_job(new)
    dispatcher(bench).sweep()
    assert messages(bench) == []
    assert bench.work() is None
