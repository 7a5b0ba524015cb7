"""The ten things that must be true after any fault. One function; every scenario ends with it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from store.jobs import TRANSITIONS, Job, JobEvent, JobState
from tests.fault.deployment import Deployment
from tests.fault.processes import job_processes
from tests.ops.service import wait_until
from worker.dispatcher import Dispatcher

SILENT_SECONDS = 15.0
"""Beyond a lease, in which a sweep must have taken the job back. Leases here are an eighth of the real ones."""
COUNTED = frozenset({"failed", "lease_lost"})


def check(deployment: Deployment, jobs: Iterable[Job], undisturbed: Mapping[str, str]) -> None:
    """Checks I1 to I10 on jobs that have been let run to their ends.

    undisturbed: name to hash of every file that such a job publishes where nothing disturbs it.
    """
    for job in jobs:
        check_job(deployment, deployment.job(job.id), undisturbed)
    _no_orphans(deployment)
    _no_stale_lease(deployment)
    _disk_is_back(deployment)


def check_job(deployment: Deployment, job: Job, undisturbed: Mapping[str, str]) -> None:
    """Checks what can be said of one job."""
    with deployment.database.reading() as repository:
        events = repository.list_events(job.id)
        attempts = repository.list_attempts(job.id)
    _one_end(job, events)
    _one_artifact(deployment, job, undisturbed)
    _no_late_write(events)
    _history_is_whole(job, events)
    counted = sum(attempt.outcome in COUNTED for attempt in attempts)
    assert counted == job.failures <= job.max_attempts, "I6: attempts beyond the budget, or a drain was counted"
    assert len(attempts) == job.attempt
    _little_is_solved_twice(deployment, job, len(attempts))


def _one_end(job: Job, events: Iterable[JobEvent]) -> None:
    assert job.state.terminal, f"I1: {job.id} is {job.state}"
    ends = [event.kind for event in events if JobState(event.payload.get("state", "queued")).terminal]
    assert len(ends) == 1, f"I1: {job.id} ended {len(ends)} times: {ends}"


def _one_artifact(deployment: Deployment, job: Job, undisturbed: Mapping[str, str]) -> None:
    with deployment.database.reading() as repository:
        files = {file.name: file.sha256 for file in repository.list_artifacts(job.id)}
    if job.state is not JobState.SUCCEEDED:
        assert files == {}, f"I2: {job.id} is {job.state} and has files"
        return
    for sha256 in files.values():
        found = hashlib.sha256(b"".join(deployment.services.artifacts.open(sha256))).hexdigest()
        assert found == sha256, "I2: stored bytes are not what their name says"
    assert files == undisturbed, f"I8: {job.id} ended in other bytes than an undisturbed job"


def _no_late_write(events: tuple[JobEvent, ...]) -> None:
    for before, after in pairwise(events):
        assert before.attempt <= after.attempt, f"I3: attempt {after.attempt} wrote after {before.attempt} had begun"


def _history_is_whole(job: Job, events: tuple[JobEvent, ...]) -> None:
    assert [event.seq for event in events] == list(range(1, len(events) + 1)), "I4: the history has a gap"
    states = [JobState(event.payload["state"]) for event in events if "state" in event.payload]
    assert states[0] is JobState.QUEUED
    assert states[-1] is job.state
    for before, after in pairwise(states):
        assert after in TRANSITIONS[before], f"I4: no arrow leads from {before} to {after}"


def _little_is_solved_twice(deployment: Deployment, job: Job, attempts: int) -> None:
    """Each new attempt may solve the one block again that was under way."""
    solved = Counter(deployment.solved_blocks(job))
    again = sum(count - 1 for count in solved.values())
    assert again <= max(attempts - 1, 0), f"I7: {again} blocks were solved again over {attempts} attempts: {solved}"


def _no_orphans(deployment: Deployment) -> None:
    wait_until(lambda: not job_processes(deployment.folder), 20)


def _no_stale_lease(deployment: Deployment) -> None:
    with deployment.database.reading() as repository:
        held = repository.list_held_jobs()
    limit = datetime.now(UTC) - timedelta(seconds=SILENT_SECONDS)
    stale = [job.id for job in held if job.lease_expires_at is not None and job.lease_expires_at < limit]
    assert stale == [], f"I9: leases that ran out are still held: {stale}"


def _disk_is_back(deployment: Deployment) -> None:
    """After the sweep nothing is left but what rows refer to."""
    services, settings = deployment.services, deployment.settings
    Dispatcher(services, deployment.celery, settings.queue_classes).tidy()
    deployment.sweep()
    for data_dir in deployment.data_dirs:
        left = list((data_dir / "work").glob("*"))
        left = [path for path in left if not deployment.is_over(path.name)]
        assert left == [], f"I10: work folders are left: {left}"
    held = deployment.stored_blobs()
    assert held == deployment.referenced_blobs(), "I10: the object store holds other blobs than rows refer to"
