"""R1, R2, R3, R17, R18: processes that are killed, frozen, cancelled and drained at every named place."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from store.jobs import Job, JobState
from tests.fault.checker import check
from tests.fault.deployment import Deployment, wait_for
from worker.faults import FaultPoint

# Where, and at which time that a worker gets there: blocks count from one.
PLACES = {
    FaultPoint.RECEIVED: 1,
    FaultPoint.CLAIMED: 1,
    FaultPoint.BLOCK_WRITTEN: 3,
    FaultPoint.BLOCK_SYNCED: 3,
    FaultPoint.BLOCK_RECORDED: 3,
    FaultPoint.CHECKPOINT_UPLOADED: 1,
    FaultPoint.CHECKPOINT_RECORDED: 1,
    FaultPoint.PACKING: 1,
    FaultPoint.UPLOADING: 4,
    FaultPoint.UPLOADED: 1,
    FaultPoint.PUBLISHING: 1,
    FaultPoint.PUBLISHED: 1,
}
QUEUES = tuple(f"at-{point}" for point in PLACES)
UNCOUNTED = {FaultPoint.RECEIVED, FaultPoint.PUBLISHED}


def queue(point: FaultPoint) -> str:
    """Returns the queue class in which a place has its own job and workers."""
    return f"at-{point}"


def pace(point: FaultPoint) -> dict[str, float]:
    """Returns a plan under which a checkpoint is on its way before the last block is solved."""
    return {"block_seconds": 0.4} if point.startswith("checkpoint") else {}


def at_every_place(deployment: Deployment, act: object) -> list[Job]:
    """Runs the action at every place at once; returns the jobs."""
    with ThreadPoolExecutor(len(PLACES)) as pool:
        return list(pool.map(lambda point: act(deployment, point), PLACES))  # type: ignore[operator]


@pytest.mark.queues(*QUEUES)
def test_r1_a_worker_killed_at_any_place(deployment: Deployment, undisturbed: Mapping[str, str]):
    """Whatever a worker was doing when it was killed, another one ends the job in the same bytes."""

    def kill_at(deployment: Deployment, point: FaultPoint) -> Job:
        # One of them holds the database's lock for a while, which on SQLite may cost another one its lease.
        job = deployment.submit(queue(point), max_attempts=6, **pace(point))
        worker = deployment.worker(queue(point), faults=f"{point}@{PLACES[point]}=hold")
        deployment.reached(queue(point), point)
        worker.kill()
        deployment.worker(queue(point))
        return deployment.wait(job)

    jobs = at_every_place(deployment, kill_at)
    for point, job in zip(PLACES, jobs, strict=True):
        assert job.state is JobState.SUCCEEDED, (point, job.error)
        assert job.failures >= (point not in UNCOUNTED), point
    check(deployment, jobs, undisturbed)


@pytest.mark.queues(*QUEUES)
def test_r17_a_cancel_at_any_place(deployment: Deployment, undisturbed: Mapping[str, str]):
    """A cancel ends the job once, also while the worker hangs there or is dead; only a published job stays so."""

    def cancel_at(deployment: Deployment, point: FaultPoint) -> Job:
        job = deployment.submit(queue(point), **pace(point))
        worker = deployment.worker(queue(point), faults=f"{point}@{PLACES[point]}=hold")
        deployment.reached(queue(point), point)
        if point is FaultPoint.PUBLISHED:
            deployment.wait(job)
        elif point is not FaultPoint.PUBLISHING:  # its transaction holds the row: the cancel would wait for it
            deployment.cancel(job)
        (deployment.marks(queue(point)) / "go").touch()
        ended = deployment.wait(job)
        if point in {FaultPoint.PUBLISHING, FaultPoint.PUBLISHED}:
            wait_for(lambda: not deployment.work_folder(job).exists(), "the work folder is left")
        worker.kill()
        return ended

    jobs = at_every_place(deployment, cancel_at)
    for point, job in zip(PLACES, jobs, strict=True):
        published = point in {FaultPoint.PUBLISHING, FaultPoint.PUBLISHED}
        assert job.state is (JobState.SUCCEEDED if published else JobState.CANCELLED), point
    deployment.worker(QUEUES[0])
    check(deployment, jobs, undisturbed)


def test_r17_a_cancel_while_the_worker_is_dead(deployment: Deployment, undisturbed: Mapping[str, str]):
    """The next sweep after the lease cancels; nobody works on it again."""
    job = deployment.submit(block_seconds=0.3)
    worker = deployment.worker()
    deployment.wait(job, lambda found: found.progress.blocks_done >= 1)
    worker.kill()
    deployment.cancel(job)
    deployment.worker()
    ended = deployment.wait(job)
    assert (ended.state, ended.attempt) == (JobState.CANCELLED, 1)
    check(deployment, [job], undisturbed)


@pytest.mark.queues("first")
def test_r3_a_frozen_worker_that_comes_back(deployment: Deployment, undisturbed: Mapping[str, str]):
    """While a supervisor is frozen another worker finishes its job; thawed, it ends its child and writes nothing."""
    job = deployment.submit("zombie", queue="first", block_seconds=0.7)
    frozen = deployment.worker("first")
    deployment.wait(job, lambda found: found.progress.blocks_done >= 2)
    frozen.freeze()
    elsewhere = deployment.worker("first", data_dir=deployment.folder / "elsewhere")
    ended = deployment.wait(job)
    assert (ended.state, ended.attempt, ended.failures) == (JobState.SUCCEEDED, 2, 1)
    frozen.thaw()
    wait_for(lambda: "attempt_abandoned" in frozen.log.read_text(), "the zombie did not notice")
    assert deployment.job(job.id) == ended
    elsewhere.kill()
    wait_for(lambda: not deployment.work_folder(job).exists(), "the zombie's folder is left")
    check(deployment, [job], undisturbed)
