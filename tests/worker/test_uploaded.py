"""Jobs on uploaded models: fetched from the store into the cache, and then as any local folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from store.jobs import Job, JobError, JobState, Stage
from tests.worker.bench import OWNER, Bench, fetch_was_shown, watched_progress
from tests.worker.uploads import put_model, source_of_upload


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A model under no root of the worker."""
    return Path(shutil.copytree(tiny_model, tmp_path / "elsewhere" / "tiny"))


def add(bench: Bench, folder: Path) -> Job:
    """Stores a model and a job on it."""
    model = put_model(bench.services.database, bench.services.artifacts, folder, OWNER)
    return bench.add(source_of_upload(model))


def published(bench: Bench, job: Job) -> dict[str, str]:
    """Returns name to hash of a job's files."""
    with bench.services.database.reading() as repository:
        return {file.name: file.sha256 for file in repository.list_artifacts(job.id)}


def error_of(bench: Bench, job: Job) -> JobError:
    """Returns why the last attempt failed."""
    with bench.services.database.reading() as repository:
        error = repository.list_attempts(job.id)[-1].error
    assert error is not None
    return error


def test_an_upload_is_quantized_as_a_folder_is(bench: Bench, folder: Path):
    """The same bytes; downloading is a stage of its own with a line per file; the config names the upload's content."""
    job, local = add(bench, folder), bench.submit()
    shutil.rmtree(folder)
    with watched_progress() as shown:
        bench.work()
    assert fetch_was_shown(shown)
    bench.work()
    ended = bench.job(job.id)
    assert ended.state is JobState.SUCCEEDED, ended.error
    mine, theirs = published(bench, job), published(bench, local)
    weights = {name for name in mine if name.endswith(".safetensors")}
    assert weights
    assert {name: mine[name] for name in weights} == {name: theirs[name] for name in weights}
    assert set(mine) == set(theirs)
    config = b"".join(bench.services.artifacts.open(mine["config.json"])).decode()
    assert str(job.spec["model"]["sha256"]) in config
    with bench.services.database.reading() as repository:
        stages = [event.payload.get("stage") for event in repository.list_events(job.id)]
        lines = [line for line in repository.list_log_lines(job.id, tail=100) if line.text == "model_file_fetched"]
    assert Stage.DOWNLOADING in stages
    assert {line.fields["name"] for line in lines} == {"config.json", "model.safetensors", *TOKENIZER}
    cached = bench.services.settings.cache_dir / "uploads" / str(job.spec["model"]["sha256"])
    assert (cached / "model.safetensors").exists()


TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def test_a_deleted_model_fails_for_good(bench: Bench, folder: Path):
    """A job that is tried again after its model went says so, once."""
    job = add(bench, folder)
    with bench.services.database.transaction() as repository:
        repository.request_cancel(job.id)
        repository.delete_uploaded_model(job.spec["model"]["id"])
        repository.retry(job.id)
    bench.work()
    ended = bench.job(job.id)
    assert ended.state is JobState.FAILED
    error = error_of(bench, job)
    assert (error.code, error.retryable) == ("model_not_found", False)
    assert "'tiny'" in error.message
    assert "Upload" in error.hint


def test_a_store_without_a_file_is_tried_again_or_told(bench: Bench, folder: Path):
    """A blob that is gone cannot come back by itself."""
    job = add(bench, folder)
    with bench.services.database.reading() as repository:
        files = repository.list_model_files(job.spec["model"]["id"])
    bench.services.artifacts.delete(files[0].sha256)
    bench.work()
    assert bench.job(job.id).state is JobState.FAILED
    assert (error_of(bench, job).code, error_of(bench, job).stage) == ("not_found", "downloading")
