"""R8, R9, R10, R15: a database that stops, fails over, hangs up during a commit, or cannot be reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import httpx
import psycopg
import pytest

from api.settings import ApiSettings
from store.errors import StorageUnavailableError
from store.jobs import Job, JobState
from store.session import Database
from store.settings import ModelRoot
from tests.api.service import job_request, serve
from tests.core.preflight.folders import make_llama
from tests.fault.checker import check
from tests.fault.conftest import Deploy
from tests.fault.deployment import Deployment, wait_for
from tests.fault.postgres import Cluster, cluster_folder, running_cluster
from tests.fault.proxy import proxied, proxied_database


@pytest.fixture
def clusters() -> Iterator[Path]:
    """A folder for clusters of the test's own."""
    with cluster_folder() as folder:
        yield folder


def running(deployment: Deployment, *, blocks: int = 2) -> Job:
    """Submits a job and waits until it is under way."""
    job = deployment.submit(block_seconds=0.4, max_attempts=5)
    deployment.wait(job, lambda found: found.progress.blocks_done >= blocks)
    return job


def execute(cluster: Cluster, statement: str) -> None:
    """Runs a statement outside any pool."""
    plain = cluster.url.replace("+psycopg", "")
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(statement.encode())


def test_r8_a_database_that_crashes_and_comes_back(
    deploy: Deploy, clusters: Path, redis_url: str, undisturbed: Mapping[str, str]
):
    """A stop at once in the middle of a job, then every connection ended by hand: nothing is lost or doubled."""
    with running_cluster(clusters / "one") as cluster:
        deployment = deploy(database_url=cluster.url, broker_url=redis_url)
        deployment.worker()
        job = running(deployment)
        cluster.stop_at_once()
        with pytest.raises(StorageUnavailableError):
            deployment.submit("refused")
        cluster.start()
        assert deployment.wait(job).state is JobState.SUCCEEDED
        again = running(deployment)
        for _ in range(3):
            execute(cluster, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name='bitmill'")
        assert deployment.wait(again).state is JobState.SUCCEEDED
        check(deployment, [job, again], undisturbed)
        deployment.end()
        deployment.database.dispose()


def test_r9_a_failover(deploy: Deploy, clusters: Path, redis_url: str, undisturbed: Mapping[str, str]):
    """The server dies and its synchronous replica takes over: what was accepted is there, and the job goes on."""
    with running_cluster(clusters / "first") as first, proxied(("127.0.0.1", first.port)) as proxy:
        url = first.url.replace(str(first.port), str(proxy.port))
        deployment = deploy(database_url=url, broker_url=redis_url)
        second = first.replica(clusters / "second")
        second.start()
        execute(first, "ALTER SYSTEM SET synchronous_standby_names = '*'")
        execute(first, "SELECT pg_reload_conf()")
        try:
            deployment.worker()
            job = running(deployment)
            accepted = deployment.submit("accepted", queue="default")
            first.stop_at_once()
            execute(second, "ALTER SYSTEM RESET synchronous_standby_names")
            second.promote()
            proxy.lead_to(("127.0.0.1", second.port))
            for submitted in (job, accepted):
                assert deployment.wait(submitted).state is JobState.SUCCEEDED
            check(deployment, [job, accepted], undisturbed)
            deployment.end()
            deployment.database.dispose()
        finally:
            second.stop_at_once()


def test_r10_connections_that_break_during_commits_of_a_worker(
    deploy: Deploy, postgres_url: str, redis_url: str, undisturbed: Mapping[str, str]
):
    """Whether a lost commit took effect is unknown to the worker, and the job still ends once."""
    with proxied_database(postgres_url) as (proxy, url):
        deployment = deploy(database_url=postgres_url, broker_url=redis_url)
        deployment.worker(database_url=url)
        job = deployment.submit(block_seconds=0.3, max_attempts=6)
        for _ in range(6):
            proxy.cut_at(b"COMMIT")
            wait_for(lambda: proxy.drop_after is None, "no commit came by")
        assert deployment.wait(job).state is JobState.SUCCEEDED
        check(deployment, [job], undisturbed)


@pytest.fixture
def api_settings(tmp_path: Path) -> ApiSettings:
    """An API on one tiny model."""
    (tmp_path / "api-models").mkdir()
    make_llama(tmp_path / "api-models" / "tiny", max_position_embeddings=2048)
    return ApiSettings(
        data_dir=tmp_path / "api",
        cache_dir=tmp_path / "api-cache",
        model_roots=(ModelRoot("models", tmp_path / "api-models"),),
    )


def test_r10_a_submit_whose_commit_is_lost_is_safe_to_repeat(api_settings: ApiSettings, postgres_url: str):
    """The client hears 503, asks again with its Idempotency-Key, and there is one job."""
    with (
        proxied_database(postgres_url) as (proxy, url),
        serve(api_settings.model_copy(update={"database_url": url})) as service,
    ):
        service.client.get("/v1/jobs").raise_for_status()
        proxy.cut_at(b"COMMIT")
        codes = [submit(service.client).status_code for _ in range(3)]
        assert codes[-1] == 202
        assert set(codes) <= {202, 503}
        assert proxy.drop_after is None
        with service.services.database.reading() as repository:
            assert sum(repository.state_counts().values()) == 1


def submit(client: httpx.Client) -> httpx.Response:
    """Submits the same job under the same key."""
    return client.post("/v1/jobs", json=job_request(), headers={"Idempotency-Key": "the-same"})


def test_r8_an_exhausted_pool_is_said(api_settings: ApiSettings, postgres_url: str):
    """503, a problem, and when to come back; with a connection free again the same request works."""
    with serve(api_settings.model_copy(update={"database_url": postgres_url})) as service, ExitStack() as held:
        with pytest.raises(StorageUnavailableError):
            take_all(service.services.database, held)
        response = service.client.get("/v1/jobs")
        assert response.status_code == 503
        assert response.headers["content-type"] == "application/problem+json"
        assert int(response.headers["retry-after"]) > 0
        held.close()
        assert service.client.get("/v1/jobs").status_code == 200


def take_all(database: Database, held: ExitStack) -> None:
    """Takes one connection after the other until there is none."""
    while True:
        held.enter_context(database.reading())


def test_r15_a_worker_cut_off_from_its_database(
    deploy: Deploy, postgres_url: str, redis_url: str, undisturbed: Mapping[str, str]
):
    """It ends its child before its lease can run out; another worker finishes; back again, it writes nothing."""
    with proxied_database(postgres_url) as (proxy, url):
        deployment = deploy(database_url=postgres_url, broker_url=redis_url)
        lonely = deployment.worker(database_url=url)
        job = deployment.submit(block_seconds=1.0, max_attempts=5)
        deployment.wait(job, lambda found: found.progress.blocks_done >= 1)
        [child] = lonely.children()
        proxy.black_hole()
        wait_for(lambda: not child.is_running(), "the child was left to itself")
        deployment.worker()
        ended = deployment.wait(job)
        assert (ended.state, ended.attempt) == (JobState.SUCCEEDED, 2)
        proxy.mend()
        lonely.kill()
        check(deployment, [job], undisturbed)
