"""From an archive to an artifact with the real engine: the bytes are those of the same model as a local folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from api.settings import ApiSettings
from store.jobs import Job, JobState
from store.session import Database
from store.settings import ModelRoot
from tests.api.service import Service, serve
from tests.conftest import Bucket
from tests.core.preflight.archives import folder_files, pack
from tests.kernels import with_kernels
from tests.worker.bench import Bench, finished
from tests.worker.celery_worker import celery_worker
from tests.worker.models import write_tiny_llama
from worker.services import open_services
from worker.settings import WorkerSettings

PATIENCE_SECONDS = 180
# What says where the model came from, or holds measured times and hashes of what does.
TELLING = {"quantization_report.json", "SHA256SUMS", "README.md", "config.json", "quantize_config.json"}
OPTIONS = {"group_size": 32, "calibration": {"set": "builtin", "samples": 4, "seq_len": 128}}


@pytest.fixture
def embedded(tmp_path: Path) -> dict[str, Any]:
    """SQLite, the filesystem broker and local artifacts, as `bitmill up` runs them."""
    return {"data_dir": tmp_path / "data"}


@pytest.fixture
def scaled(tmp_path: Path, postgres_url: str, redis_url: str, bucket: Bucket) -> dict[str, Any]:
    """PostgreSQL, Redis and a bucket, as docker-compose.yml runs them."""
    return {
        "data_dir": tmp_path / "data",
        "database_url": postgres_url,
        "broker_url": redis_url,
        "artifacts_url": bucket.url,
        "s3_endpoint": bucket.endpoint,
    }


@contextmanager
def running(where: dict[str, Any], tmp_path: Path) -> Iterator[tuple[Service, Bench, WorkerSettings]]:
    """An API, and the settings of a worker that shares nothing with it but what `where` names."""
    model = write_tiny_llama(tmp_path / "models" / "tiny", blocks=2, hidden=64)
    roots = (ModelRoot("models", tmp_path / "models"),)
    api = ApiSettings(cache_dir=tmp_path / "api cache", model_roots=roots, **where)
    database = Database(api.database_url)
    database.upgrade()
    database.dispose()
    cache = with_kernels(tmp_path / "worker cache")
    settings = WorkerSettings(cache_dir=cache, model_roots=roots, poll_seconds=0.1, sweep_seconds=0.5, **where)
    services = open_services(settings)
    with serve(api) as service:
        yield service, Bench(services, model), settings
    services.database.dispose()
    services.waker.close()


@pytest.mark.parametrize("deployment", ["embedded", "scaled"])
def test_an_uploaded_model_ends_in_the_bytes_of_a_local_one(
    request: pytest.FixtureRequest, deployment: str, tmp_path: Path
):
    """Weights, tokenizer and all that does not name the source; the report names the upload and its content."""
    with running(request.getfixturevalue(deployment), tmp_path) as (service, bench, settings):
        content = pack({f"m/{name}": data for name, data in folder_files(bench.tiny_model).items()}, "tar.gz")
        stored = service.client.post("/v1/uploaded-models", files={"file": ("mine.tar.gz", content)})
        assert stored.status_code == 201, stored.text
        model = stored.json()
        local = service.submit(**OPTIONS)
        mine = service.submit(model={"source": "upload", "id": model["id"]}, **OPTIONS)
        with celery_worker(settings, tmp_path / "worker.log"):
            jobs = [bench.wait(job["id"], finished, PATIENCE_SECONDS) for job in (local, mine)]
        for job in jobs:
            assert job.state is JobState.SUCCEEDED, job.error
        theirs, ours = (published(bench, job) for job in jobs)
        assert set(ours) == set(theirs)
        assert {name: ours[name] for name in set(ours) - TELLING} == {
            name: theirs[name] for name in set(theirs) - TELLING
        }
        report = b"".join(bench.services.artifacts.open(ours["quantization_report.json"])).decode()
        assert "mine.tar.gz" in report
        assert model["sha256"] in report


def test_the_folder_is_not_needed_after_the_upload(embedded: dict[str, Any], tmp_path: Path):
    """The model lies under no root when its job runs."""
    with running(embedded, tmp_path) as (service, bench, settings):
        content = pack(folder_files(bench.tiny_model), "zip")
        model = service.client.post("/v1/uploaded-models", files={"file": ("mine.zip", content)}).json()
        shutil.rmtree(bench.tiny_model)
        job = service.submit(model={"source": "upload", "id": model["id"]}, method="rtn")
        with celery_worker(settings, tmp_path / "worker.log"):
            ended = bench.wait(job["id"], finished, PATIENCE_SECONDS)
        assert ended.state is JobState.SUCCEEDED, ended.error


def published(bench: Bench, job: Job) -> dict[str, str]:
    """Returns name to hash of a job's files."""
    with bench.services.database.reading() as repository:
        return {file.name: file.sha256 for file in repository.list_artifacts(job.id)}
