"""R11, R12, R18: full disks, wrong clocks, restarts."""

from __future__ import annotations

import random
import resource
import signal
import sqlite3
from collections.abc import Mapping
from contextlib import closing

import httpx
import psycopg
import pytest

from store.jobs import JobError, JobState
from tests.api.service import job_request
from tests.core.preflight.folders import make_llama
from tests.fault.checker import check
from tests.fault.conftest import Deploy
from tests.fault.deployment import Deployment, wait_for
from tests.fault.postgres import SMALL_WAL_MB, cluster_folder, running_cluster
from tests.fault.processes import Forked
from tests.servers import free_port

HOURS = 3600.0
ROLLED_JOBS = 20
PADDING = 1600  # the text of an event that fills a page of a table whose pages are full at a tenth
PADDED_PAGES = 136 * SMALL_WAL_MB


@pytest.mark.parametrize("plan", ["block_written@3=enospc", "checkpoint_uploaded=enospc", "uploading@2=enospc"])
def test_r11_a_full_disk_under_a_worker(deployment: Deployment, undisturbed: Mapping[str, str], plan: str):
    """No room for a block, a checkpoint or an artifact: the attempt says so, and a later one ends the job."""
    job = deployment.submit(max_attempts=6, block_seconds=0.2)
    deployment.worker(faults=plan)
    assert deployment.wait(job).state is JobState.SUCCEEDED
    errors = deployment.errors(job)
    assert {error.code for error in errors} <= {"disk_full"}
    # An upload is tried again within the attempt, and a checkpoint is no condition of it.
    assert bool(errors) == plan.startswith("block")
    check(deployment, [job], undisturbed)


def test_r11_a_full_disk_under_the_database(deploy: Deploy):
    """Each submit is either stored and answered 202, or refused with 503; reads go on, nothing stays half-written, and
    with room again the next submit is stored.
    """
    deployment = deploy()
    api, client = start_api(deployment)
    # The first one stores the built-in calibration text, which is larger than the room that is left.
    assert client.post("/v1/jobs", json=job_request()).status_code == 202
    size = max(path.stat().st_size for path in deployment.settings.data_dir.glob("bitmill.db*"))
    resource.prlimit(api.process.pid, resource.RLIMIT_FSIZE, (size + 65_536, resource.RLIM_INFINITY))
    answers = submit_until_refused(client)
    assert client.get("/v1/jobs").status_code == 200
    resource.prlimit(api.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert client.post("/v1/jobs", json=job_request()).status_code == 202
    with deployment.database.reading() as repository:
        assert sum(repository.state_counts().values()) == len(answers) + 1
    with closing(sqlite3.connect(deployment.settings.data_dir / "bitmill.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    client.close()


def test_r11_a_full_disk_under_postgresql(deploy: Deploy, redis_url: str, undisturbed: Mapping[str, str]):
    """History that cannot grow: submits are refused with 503 and what runs goes on; with room again all of it ends."""
    with cluster_folder() as folder, running_cluster(folder / "one", small_wal=True) as cluster:
        deployment = deploy(database_url=cluster.url, broker_url=redis_url, queue_classes=("parked", "work"))
        _, client = start_api(deployment)
        assert client.post("/v1/jobs", json=job_request()).status_code == 202
        job = deployment.submit("work", block_seconds=0.7, max_attempts=6)
        room = grow_history(deployment)
        worker = deployment.worker("work")
        deployment.wait(job, lambda found: found.progress.blocks_done >= 2)
        cluster.limit_files(room)
        answers = submit_until_refused(client)
        assert client.get(f"/v1/jobs/{job.id}").json()["state"] == "running"
        wait_for(lambda: "heartbeat_failed" in worker.log.read_text(), "the worker did not meet the full disk")
        solved = len(deployment.solved_blocks(job))
        wait_for(lambda: len(deployment.solved_blocks(job)) > solved, "the engine waits for the database")
        cluster.limit_files(None)
        assert deployment.wait(job).state is JobState.SUCCEEDED
        assert client.post("/v1/jobs", json=job_request()).status_code == 202
        with deployment.database.reading() as repository:
            assert repository.state_counts()[JobState.QUEUED] == len(answers) + 1
        client.close()
        check(deployment, [job], undisturbed)
        deployment.end()
        deployment.database.dispose()


def submit_until_refused(client: httpx.Client) -> list[httpx.Response]:
    """Submits jobs until there is no room for one; returns the answers, of which the last one is a clear refusal."""
    answers: list[httpx.Response] = []
    while len(answers) < 400 and (not answers or answers[-1].status_code == 202):
        answers.append(client.post("/v1/jobs", json=job_request()))
    assert (answers[-1].status_code, answers[-1].json()["code"]) == (503, "storage_unavailable"), answers[-1].text
    assert int(answers[-1].headers["retry-after"]) > 0
    return answers


def grow_history(deployment: Deployment) -> int:
    """Fills the table of events until it is larger than a file of the server's own log; returns its bytes."""
    with psycopg.connect(deployment.settings.database_url.replace("+psycopg", ""), autocommit=True) as connection:
        # Each connection has a page under way; what still goes into it must not be a whole job's history.
        connection.execute("ALTER TABLE events SET (fillfactor = 10)")
        deployment.submit("parked")
        with deployment.database.transaction() as repository:
            held = repository.claim("wrk_parked", "parked")
            assert held is not None
            for _ in range(PADDED_PAGES):
                text = random.randbytes(PADDING // 2).hex()
                repository.add_event(held.id, held.lease_token, "padding", {"text": text})
            repository.fail(held.id, held.lease_token, JobError(code="parked", message="Padding.", retryable=False))
        [size] = connection.execute("SELECT pg_relation_size('events')").fetchone() or (0,)
    assert size > SMALL_WAL_MB * 2**20
    return int(size)


def start_api(
    deployment: Deployment, *, clock_offset: float = 0, variables: Mapping[str, str] | None = None
) -> tuple[Forked, httpx.Client]:
    """Starts an API of a deployment, with one model that it accepts, and waits until it answers."""
    folder = deployment.settings.model_roots[0].path / "tiny"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        make_llama(folder, max_position_embeddings=2048)
    port = free_port()
    api = deployment.api(port, clock_offset=clock_offset, variables=variables)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)

    def answers() -> bool:
        try:
            return client.get("/livez").status_code == 200
        except httpx.TransportError:
            return False

    wait_for(answers, lambda: f"the API did not start: {api.log.read_text()[-2000:]}")
    return api, client


@pytest.mark.parametrize("offset", [2 * HOURS, -2 * HOURS])
def test_r12_clocks_that_are_wrong(deployment: Deployment, undisturbed: Mapping[str, str], offset: float):
    """Workers and API two hours off on either side, one each way: leases and times are the database's."""
    _, client = start_api(deployment, clock_offset=-offset)
    answer = client.post("/v1/jobs", json=job_request(max_attempts=1))
    assert answer.status_code == 202, answer.text
    cancelled = client.post(f"/v1/jobs/{answer.json()['id']}:cancel").json()
    assert cancelled["state"] == "cancelled"
    job = deployment.submit("right", queue="default", block_seconds=0.2)
    deployment.worker(clock_offset=offset)
    ended = deployment.wait(job)
    assert (ended.state, ended.attempt) == (JobState.SUCCEEDED, 1)
    assert ended.finished_at is not None
    assert abs((ended.finished_at - deployment.job(answer.json()["id"]).created_at).total_seconds()) < HOURS
    client.close()
    check(deployment, [job], undisturbed)


def test_r18_a_rolling_restart(deployment: Deployment, undisturbed: Mapping[str, str]):
    """Under twenty jobs, workers are replaced by TERM, TERM twice and QUIT: all succeed and nothing is counted."""
    jobs = [deployment.submit(f"job-{number}", queue="default", block_seconds=0.05) for number in range(ROLLED_JOBS)]
    old = deployment.worker()
    for signals in ([signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM], [signal.SIGQUIT]):
        started = sum(deployment.job(job.id).attempt > 0 for job in jobs)
        wait_for(lambda started=started: attempted(deployment) > started, "the worker does nothing")
        new = deployment.worker()
        for number in signals:
            old.signal(number)
        old.wait(60)
        old = new
    for job in jobs:
        ended = deployment.wait(job)
        assert (ended.state, ended.failures) == (JobState.SUCCEEDED, 0)
    check(deployment, jobs, undisturbed)


def attempted(deployment: Deployment) -> int:
    """Returns how many jobs have been claimed at least once."""
    with deployment.database.reading() as repository:
        counts = repository.state_counts()
    return sum(counts.values()) - counts[JobState.QUEUED]
