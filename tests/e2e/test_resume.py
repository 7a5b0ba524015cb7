"""The real engine under a real worker: killed without warning, it goes on and the artifact's bytes do not tell."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from obstore.store import S3Store

from core.calibration.builtin import builtin_text
from core.configs import CalibrationConfig, GPTQConfig
from store.jobs import Job, JobFilter, JobState, NewCalibrationSet, NewJob
from store.session import Database
from store.settings import ModelRoot
from store.sweep import sweep_blobs
from tests.conftest import Bucket
from tests.kernels import with_kernels
from tests.worker.bench import OWNER, Bench, finished
from tests.worker.celery_worker import celery_worker
from tests.worker.models import write_tiny_llama
from worker.services import open_services
from worker.settings import WorkerSettings

BLOCKS = 30
KILLED_AFTER_BLOCK = 2
# They carry measured times; everything else must be the same bytes.
MEASURED_FILES = frozenset({"quantization_report.json", "SHA256SUMS"})
PATIENCE_SECONDS = 180


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all, with the solver's kernels in it."""
    return with_kernels(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def settings(tmp_path: Path, cache_dir: Path) -> WorkerSettings:
    """Leases short enough for a test; the engine is the real one."""
    return WorkerSettings(
        data_dir=tmp_path / "data",
        cache_dir=cache_dir,
        model_roots=(ModelRoot("models", tmp_path / "models"),),
        lease_seconds=12,
        fence_seconds=10,
        heartbeat_seconds=1,
        poll_seconds=0.1,
        sweep_seconds=0.5,
    )


@pytest.fixture
def embedded(settings: WorkerSettings, tmp_path: Path) -> Iterator[Bench]:
    """SQLite, the filesystem broker and local artifacts, as `bitmill up` runs them."""
    with opened(settings, tmp_path) as bench:
        yield bench


@pytest.fixture
def scaled(settings: WorkerSettings, tmp_path: Path, postgres_url: str, redis_url: str) -> Iterator[Bench]:
    """PostgreSQL and Redis, as docker-compose.yml runs them."""
    with opened(settings.model_copy(update={"database_url": postgres_url, "broker_url": redis_url}), tmp_path) as bench:
        yield bench


@contextmanager
def opened(settings: WorkerSettings, tmp_path: Path) -> Iterator[Bench]:
    """Services with a new database, and a tiny random Llama under the model root."""
    database = Database(settings.database_url)
    database.upgrade()
    database.dispose()
    model = write_tiny_llama(tmp_path / "models" / "tiny", blocks=BLOCKS, hidden=128)
    services = open_services(settings)
    yield Bench(services, model)
    services.database.dispose()
    services.waker.close()


@contextmanager
def opened_again(settings: WorkerSettings, bench: Bench) -> Iterator[Bench]:
    """The bench's database under other settings."""
    services = open_services(settings)
    yield Bench(services, bench.tiny_model)
    services.database.dispose()
    services.waker.close()


@pytest.mark.parametrize("deployment", ["embedded", "scaled"])
def test_a_killed_job_resumes_and_its_bytes_do_not_tell(
    request: pytest.FixtureRequest, deployment: str, tmp_path: Path
):
    """After kill -9 behind block k no child survives; attempt 2 goes on there, to the bytes of an undisturbed job."""
    deployed: Bench = request.getfixturevalue(deployment)
    settings = deployed.services.settings
    undisturbed, disturbed = submit(deployed), submit(deployed)
    with celery_worker(settings, tmp_path / "first.log") as worker:
        deployed.wait(undisturbed.id, finished, PATIENCE_SECONDS)
        deployed.wait(disturbed.id, after_block(KILLED_AFTER_BLOCK), PATIENCE_SECONDS)
        [child] = worker.children()
        worker.kill()
        assert psutil.wait_procs([child], timeout=60)[1] == []
    with celery_worker(settings, tmp_path / "second.log"):
        job = deployed.wait(disturbed.id, finished, PATIENCE_SECONDS)
    assert (job.state, job.attempt, job.failures) == (JobState.SUCCEEDED, 2, 1)
    with deployed.services.database.reading() as repository:
        events = repository.list_events(disturbed.id)
        linears = repository.list_linears(disturbed.id)
    [_, resumed] = [event.payload["blocks_resumed"] for event in events if event.kind == "run_started"]
    assert KILLED_AFTER_BLOCK < resumed < BLOCKS
    solved = [event.payload["block"] for event in events if event.kind == "block_quantized"]
    assert solved == sorted(solved)
    assert {row.block for row in linears} == set(range(BLOCKS))
    assert published(deployed, disturbed) == published(deployed, undisturbed)
    assert not deployed.folder_left(disturbed.id)


def test_another_machine_goes_on_with_the_finished_blocks(scaled: Bench, bucket: Bucket, tmp_path: Path):
    """A worker with a data directory of its own fetches what the killed one had finished, solves only the rest, and
    ends with the bytes of an undisturbed job; afterwards the bucket holds the artifacts and nothing more.
    """
    settings = scaled.services.settings.model_copy(
        update={
            "artifacts_url": bucket.url,
            "s3_endpoint": bucket.endpoint,
            "share_checkpoints": True,
        }
    )
    with opened_again(settings, scaled) as bench:
        undisturbed, disturbed = submit(bench), submit(bench)
        with celery_worker(settings, tmp_path / "first.log") as worker:
            bench.wait(undisturbed.id, finished, PATIENCE_SECONDS)
            bench.wait(disturbed.id, has_checkpoints(bench, KILLED_AFTER_BLOCK), PATIENCE_SECONDS)
            worker.kill()
        elsewhere = settings.model_copy(update={"data_dir": tmp_path / "other machine"})
        with celery_worker(elsewhere, tmp_path / "second.log"):
            job = bench.wait(disturbed.id, finished, PATIENCE_SECONDS)
            assert (job.state, job.attempt, job.failures) == (JobState.SUCCEEDED, 2, 1)
            with bench.services.database.reading() as repository:
                events = repository.list_events(disturbed.id)
                linears = repository.list_linears(disturbed.id)
            [_, resumed] = [event.payload["blocks_resumed"] for event in events if event.kind == "run_started"]
            assert KILLED_AFTER_BLOCK < resumed < BLOCKS
            assert {row.block for row in linears} == set(range(BLOCKS))
            assert published(bench, disturbed) == published(bench, undisturbed)
        sweep_blobs(bench.services.database, bench.services.artifacts, older_than_seconds=-1)
        assert stored_blobs(bucket) == referenced_blobs(bench)


def test_quality_is_measured_where_it_is_asked_for(embedded: Bench, tmp_path: Path):
    """An evaluated job carries how near it is to the float model, and so does its card, under a hash that is right."""
    job = submit(embedded, evaluate=True)
    with celery_worker(embedded.services.settings, tmp_path / "worker.log"):
        job = embedded.wait(job.id, finished, PATIENCE_SECONDS)
    assert job.state is JobState.SUCCEEDED, job.error
    assert job.evaluation is not None
    assert job.evaluation["perplexity_float"] > 1
    assert job.evaluation["perplexity_ratio"] == pytest.approx(1, abs=0.5)
    assert 0 <= job.evaluation["kl_divergence"] < 1
    assert 0 < job.evaluation["top1_agreement"] <= 1
    assert job.evaluation["bytes_quantized"] < job.evaluation["bytes_float"]
    assert job.evaluation["sample"]["prompt"]
    assert job.resolved["calibration_sha256"]
    card = card_of(embedded, job)
    assert f"{job.evaluation['kl_divergence']:.5f} nats per token" in card


def card_of(bench: Bench, job: Job) -> str:
    """Returns the published card, after comparing its hash with the published list."""
    with bench.services.database.reading() as repository:
        hashes = {file.name: file.sha256 for file in repository.list_artifacts(job.id)}
    sums = b"".join(bench.services.artifacts.open(hashes["SHA256SUMS"])).decode()
    assert f"{hashes['README.md']}  README.md" in sums
    return b"".join(bench.services.artifacts.open(hashes["README.md"])).decode()


def submit(bench: Bench, *, evaluate: bool = False) -> Job:
    """Stores a GPTQ job on the built-in text."""
    text = "\n\n".join(builtin_text("calibration")).encode()
    sha256, size_bytes = bench.services.artifacts.put_bytes(text)
    new_set = NewCalibrationSet(
        owner_key_id=OWNER, name="builtin", format="text", sha256=sha256, size_bytes=size_bytes, documents=1
    )
    with bench.services.database.transaction() as repository:
        stored = repository.add_calibration_set(new_set)
        options = CalibrationConfig(samples=16, seq_len=256).to_dict()
        spec = {
            "model": {"source": "path", "root": "models", "path": "tiny"},
            "quantization": GPTQConfig(group_size=32).to_dict(),
            "calibration": {"set": stored.id, **options},
            "targets": [],
            "formats": ["gptq"],
            "evaluate": evaluate,
        }
        return repository.add_job(NewJob(owner_key_id=OWNER, spec=spec, calibration_set_id=stored.id))[0]


def after_block(block: int) -> Callable[[Job], bool]:
    """Returns the condition that a block is recorded."""
    return lambda job: job.progress.blocks_done > block


def has_checkpoints(bench: Bench, block: int) -> Callable[[Job], bool]:
    """Returns the condition that a block lies in the object store."""

    def holds(job: Job) -> bool:
        with bench.services.database.reading() as repository:
            return len(repository.list_checkpoints(job.id)) > block

    return holds


def stored_blobs(bucket: Bucket) -> set[str]:
    """Returns the hashes of all blobs in the bucket."""
    name, _, prefix = bucket.url.removeprefix("s3://").partition("/")
    store = S3Store(
        name,
        prefix=prefix,
        endpoint=bucket.endpoint,
        client_options={"allow_http": True},
        virtual_hosted_style_request=False,
    )
    return {Path(entry["path"]).name for page in store.list() for entry in page}


def referenced_blobs(bench: Bench) -> set[str]:
    """Returns the hashes that artifacts and calibration sets name."""
    with bench.services.database.reading() as repository:
        jobs = repository.list_jobs(None, JobFilter(), 100)
        named = {file.sha256 for job in jobs for file in repository.list_artifacts(job.id)}
        return named | {stored.sha256 for stored in repository.list_calibration_sets()}


def published(bench: Bench, job: Job) -> dict[str, str]:
    """Returns name to hash of every published file that must not depend on time, as read back from the store."""
    with bench.services.database.reading() as repository:
        artifacts = repository.list_artifacts(job.id)
    files = {}
    for artifact in artifacts:
        digest = hashlib.sha256(b"".join(bench.services.artifacts.open(artifact.sha256))).hexdigest()
        assert digest == artifact.sha256
        files[artifact.name] = digest
    assert {"config.json", "quantize_config.json", "tokenizer.json", *MEASURED_FILES} <= set(files)
    return {name: digest for name, digest in files.items() if name not in MEASURED_FILES}
