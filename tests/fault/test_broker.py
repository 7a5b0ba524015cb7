"""R4, R5, R6, R7: a broker that repeats, forgets, is away, or hangs up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import pytest
import redis

from store.jobs import Job, JobState
from tests.fault.checker import check
from tests.fault.conftest import Deploy
from tests.fault.deployment import PATIENCE_SECONDS, Deployment, wait_for
from tests.fault.processes import Forked
from tests.fault.proxy import Proxy, proxied
from tests.fault.test_surroundings import start_api
from tests.servers import RedisServer
from worker.tasks import run_next

DISTURBED_SECONDS = 2
SUBMITS = 8
"""While the broker is away, but for the first."""
STARTED_SECONDS = 40
"""Within which a job starts whose wake-up was lost."""
IDLE_EXIT_SECONDS = 6
"""Celery's consumer may be dead after a connection was lost (celery#10302); the worker ends itself then."""


def test_r4_one_message_many_times(deployment: Deployment, undisturbed: Mapping[str, str]):
    """A wake-up delivered fifty times from eight threads claims the job once."""
    job = deployment.submit()
    with ThreadPoolExecutor(8) as pool:
        worked = list(pool.map(lambda _: run_next(deployment.services, "default"), range(50)))
    assert [found for found in worked if found is not None] == [job.id]
    assert deployment.job(job.id).attempt == 1
    deployment.data_dirs.append(deployment.settings.data_dir)
    check(deployment, [job], undisturbed)


def forget(deployment: Deployment) -> None:
    """Empties the broker."""
    if deployment.settings.broker_url.startswith("redis"):
        client = redis.Redis.from_url(deployment.settings.broker_url)
        client.flushall()
        client.close()
        return
    for message in (deployment.settings.broker_dir / "messages").glob("*"):
        with suppress(FileNotFoundError):
            message.unlink()


def test_r5_a_broker_that_forgets(deployment: Deployment, undisturbed: Mapping[str, str]):
    """Jobs start soon though no wake-up was sent, or all were lost, before the worker came and after."""
    jobs = [deployment.submit()]
    deployment.services.waker.wake("default")
    forget(deployment)
    deployment.worker()
    deployment.wait(jobs[0], lambda job: job.attempt > 0, STARTED_SECONDS)
    forget(deployment)
    jobs.append(deployment.submit())
    deployment.wait(jobs[1], lambda job: job.attempt > 0, STARTED_SECONDS)
    for job in jobs:
        assert deployment.wait(job).state is JobState.SUCCEEDED
    check(deployment, jobs, undisturbed)


@pytest.mark.parametrize("away_seconds", [2, pytest.param(60, marks=pytest.mark.soak)])
def test_r5_r6_a_broker_that_is_away_and_comes_back_empty(
    deploy: Deploy, private_redis: RedisServer, postgres_url: str, undisturbed: Mapping[str, str], away_seconds: float
):
    """While it is away a running job goes on and submits are answered 202; when it is back, empty, they run."""
    deployment = deploy(database_url=postgres_url, broker_url=private_redis.url, idle_exit_seconds=IDLE_EXIT_SECONDS)
    _, client = start_api(deployment)
    worker = deployment.worker()
    running = deployment.submit(block_seconds=max(0.3, away_seconds / 6))
    deployment.wait(running, lambda job: job.progress.blocks_done >= 1)
    private_redis.stop()
    gone_at = time.monotonic()
    waiting = [submit_over(client, deployment)]
    assert not deployment.services.waker.wake("default")
    while time.monotonic() - gone_at < away_seconds:
        time.sleep(away_seconds / SUBMITS)
        waiting.append(submit_over(client, deployment))
    assert deployment.wait(running).state is JobState.SUCCEEDED
    assert deployment.errors(running) == []
    private_redis.start()
    keep_running(deployment, worker, lambda: deployment.job(waiting[0].id).attempt > 0, STARTED_SECONDS)
    ended = [deployment.wait(job) for job in waiting]
    assert {job.state for job in ended} == {JobState.SUCCEEDED}
    check(deployment, [running, *waiting], undisturbed)
    client.close()


def submit_over(client: httpx.Client, deployment: Deployment) -> Job:
    """Submits a quick job through the API, which must accept it."""
    request = {"model": deployment.model("quick"), "method": "rtn", "group_size": 32}
    answer = client.post("/v1/jobs", json=request)
    assert answer.status_code == 202, answer.text
    return deployment.job(answer.json()["id"])


def keep_running(deployment: Deployment, worker: Forked, condition: Callable[[], bool], seconds: float) -> None:
    """Waits for a condition; a worker that has ended, because it heard nothing any more, is started anew as its process
    manager does.
    """

    def met() -> bool:
        nonlocal worker
        if not worker.running:
            worker = deployment.worker()
        return condition()

    wait_for(met, "the worker neither consumes nor ends", seconds)


@pytest.mark.parametrize("fault", ["reset", "cut", "black_hole"])
def test_r7_connections_that_break(
    deploy: Deploy, redis_url: str, postgres_url: str, undisturbed: Mapping[str, str], fault: str
):
    """After resets, a refusal or a silence the worker consumes again, or has ended for its manager to start anew."""
    parsed = urlsplit(redis_url)
    with proxied((str(parsed.hostname), parsed.port or 6379)) as proxy:
        deployment = deploy(
            database_url=postgres_url,
            broker_url=f"redis://127.0.0.1:{proxy.port}/0",
            idle_exit_seconds=IDLE_EXIT_SECONDS,
        )
        worker = deployment.worker()
        jobs = [deployment.submit()]
        deployment.wait(jobs[0])
        disturb(proxy, fault)
        jobs.append(deployment.submit())

        keep_running(deployment, worker, lambda: deployment.job(jobs[1].id).attempt > 0, PATIENCE_SECONDS)
        assert deployment.wait(jobs[1]).state is JobState.SUCCEEDED
        check(deployment, jobs, undisturbed)


def disturb(proxy: Proxy, fault: str) -> None:
    """Breaks every connection in one of three ways, and mends the last two after a while."""
    if fault == "reset":
        for _ in range(3):
            proxy.reset()
        return
    getattr(proxy, fault)()
    time.sleep(DISTURBED_SECONDS)
    proxy.mend()
