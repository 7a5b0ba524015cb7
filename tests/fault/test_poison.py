"""R2, R13: children and jobs that die, hang or make no sense, and the queue that moves on."""

from __future__ import annotations

import time
from collections.abc import Mapping

import redis

from store.jobs import JobState
from store.queue import KEY_PREFIX
from tests.fault.checker import check
from tests.fault.deployment import Deployment
from tests.store.broken_messages import BROKEN_MESSAGES

CLASSIFIED_SECONDS = 5
FAULTS = {"segv": "child_crashed", "memory": "out_of_memory", "exit": "child_exited"}


def test_r2_a_child_that_dies_is_classified_soon(deployment: Deployment, undisturbed: Mapping[str, str]):
    """Crash, exhausted memory, exit and kill -9 each get their code at their block, and the next attempt goes on."""
    worker = deployment.worker()
    jobs = {code: deployment.submit(fault, queue="default", fault=fault, block=3) for fault, code in FAULTS.items()}
    for job in jobs.values():
        assert deployment.wait(job).state is JobState.SUCCEEDED
    killed = deployment.submit("killed", queue="default", block_seconds=1.5)
    deployment.wait(killed, lambda job: job.progress.blocks_done >= 1)
    [child] = worker.children()
    child.kill()
    at = time.monotonic()
    deployment.wait(killed, lambda job: job.failures == 1)
    assert time.monotonic() - at < CLASSIFIED_SECONDS
    deployment.wait(killed)
    for code, job in {**jobs, "child_killed": killed}.items():
        with deployment.database.reading() as repository:
            [first, second] = repository.list_attempts(job.id)
        assert first.error is not None
        assert (first.error.code, second.outcome) == (code, "succeeded")
    check(deployment, [*jobs.values(), killed], undisturbed)


def test_r13_poison_does_not_stop_the_queue(deployment: Deployment, undisturbed: Mapping[str, str]):
    """A job that crashes each time, one that hangs, a row and messages that nobody can read: the next job runs."""
    spoil_the_broker(deployment)
    crashing = deployment.submit("crashing", queue="default", fault="segv", block=1, times=99, max_attempts=9)
    hanging = deployment.submit("hanging", queue="default", fault="stall", block=2, times=99, max_attempts=2)
    senseless = deployment.add({"source": "nowhere", "path": "tiny"}, plan={}, queue="default")
    behind = deployment.submit("behind", queue="default")
    worker = deployment.worker(stall_limit_seconds=6)

    assert deployment.wait(behind).state is JobState.SUCCEEDED
    codes = []
    for job in (crashing, hanging, senseless):
        ended = deployment.wait(job)
        assert ended.state is JobState.FAILED
        assert ended.error is not None
        codes.append(ended.error.code)
    assert codes == ["poison_job", "poison_job", "spec_invalid"]
    assert worker.running
    check(deployment, [crashing, hanging, senseless, behind], undisturbed)


def spoil_the_broker(deployment: Deployment) -> None:
    """Puts messages into the queue that are none."""
    if deployment.settings.broker_url.startswith("redis"):
        with redis.Redis.from_url(deployment.settings.broker_url) as client:
            client.lpush(f"{KEY_PREFIX}default", *BROKEN_MESSAGES.values())
        return
    folder = deployment.settings.broker_dir / "messages"
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(BROKEN_MESSAGES.values()):
        (folder / f"{number}.default.msg").write_bytes(content)
