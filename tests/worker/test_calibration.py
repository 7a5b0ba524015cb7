"""Where a job's calibration text comes from: a data set of a hub on this machine, or the model itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.calibration.hub import HubDataset
from core.calibration.hub_download import Hub, fetch_dataset
from core.calibration.texts import read_documents
from core.calibration.windows import draw_windows
from core.configs import CalibrationConfig, GPTQConfig
from core.errors import CalibrationProblem, CalibrationRefusedError
from core.evaluation.loading import load_tokenizer
from store.jobs import JobEvent, JobState, NewJob
from tests.kernels import with_kernels
from tests.worker.bench import OWNER, Bench
from tests.worker.fake_hub import BROKEN_REPO, COMMIT, DATASET_REPO, GATED_REPO, FakeHub, fake_hub

ROWS = [{"text": f"Row {number} tells of the mill and of the river that turns it.\n"} for number in range(40)]
FILE = "data/train-00000-of-00001.parquet"
DRAW = CalibrationConfig(samples=4, seq_len=32)


@pytest.fixture
def hub(tmp_path: Path, tiny_model: Path) -> Iterator[FakeHub]:
    """A hub with a data set of one small Parquet file and something else beside it."""
    folder = tmp_path / "dataset"
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(ROWS), folder / FILE)
    (folder / "loader.py").write_text("raise SystemExit")
    with fake_hub(tiny_model, folder) as served:
        yield served


@pytest.fixture
def online(bench: Bench, hub: FakeHub) -> Bench:
    """A bench whose worker uses that hub, and the real engine."""
    with_kernels(bench.services.settings.cache_dir)
    update = {"hub_endpoint": hub.endpoint, "test_engine": None, "allow_test_hooks": False}
    return Bench(replace(bench.services, settings=bench.services.settings.model_copy(update=update)), bench.tiny_model)


def submit(bench: Bench, text: str) -> str:
    """Stores a job that is calibrated on `text`, as a request names it."""
    bench.model()
    spec: dict[str, Any] = {
        "model": {"source": "path", "root": "models", "path": "tiny"},
        "quantization": GPTQConfig(group_size=32, mismatch_alpha=0.0).to_dict(),
        "calibration": {"set": text, **DRAW.to_dict()},
        "targets": [],
    }
    with bench.services.database.transaction() as repository:
        return repository.add_job(NewJob(owner_key_id=OWNER, spec=spec, calibration_set_id=None))[0].id


def drawn(bench: Bench, job_id: str) -> JobEvent:
    """Returns the event that counts the draw."""
    with bench.services.database.reading() as repository:
        [event] = [event for event in repository.list_events(job_id) if event.kind == "calibration_drawn"]
    return event


def test_a_job_is_calibrated_on_a_data_set_of_the_hub(online: Bench, hub: FakeHub):
    """One file is fetched and nothing else; the commit is on the job; the exact count is in its history."""
    job_id = submit(online, f"hub:{DATASET_REPO}")
    online.work()
    job = online.job(job_id)
    assert job.state is JobState.SUCCEEDED, job.error
    assert job.resolved["calibration_commit"] == COMMIT
    assert job.resolved["calibration_file"] == FILE
    fetched = [request for request in hub.requests if request.startswith("GET /datasets/")]
    assert [request.rpartition("/")[2] for request in fetched] == [FILE.rpartition("/")[2]]
    counted = drawn(online, job_id).payload
    assert counted["documents"] == len(ROWS)
    expected = draw_windows([row["text"] for row in ROWS], load_tokenizer(online.tiny_model), DRAW)
    assert (counted["tokens_available"], counted["sha256"]) == (expected.tokens_available, expected.sha256)
    assert (counted["samples"], counted["seq_len"]) == (4, 32)
    assert any("English only" in warning["message"] for warning in job.warnings)


def test_a_model_without_text_writes_its_own(online: Bench):
    """The job needs nothing else, and its report counts what was drawn."""
    job_id = submit(online, "self")
    online.work()
    job = online.job(job_id)
    assert job.state is JobState.SUCCEEDED, job.error
    assert drawn(online, job_id).payload["documents"] == 6
    assert not job.warnings


def test_a_data_set_comes_from_the_cache_the_second_time(hub: FakeHub, tmp_path: Path):
    """Its file is fetched once; a pinned commit stays."""
    where, out = Hub(endpoint=hub.endpoint, cache_dir=tmp_path / "cache"), tmp_path / "text"
    first = fetch_dataset(HubDataset(repo=DATASET_REPO), where, out)
    assert list(read_documents(out)) == [row["text"] for row in ROWS]
    hub.requests.clear()
    again = fetch_dataset(HubDataset(repo=DATASET_REPO, revision=first.commit), where, out)
    assert again == first
    assert not [request for request in hub.requests if request.startswith("GET /datasets/")]


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (HubDataset(repo="acme/absent"), "no data set"),
        (HubDataset(repo=DATASET_REPO, revision="v9"), "no revision v9"),
        (HubDataset(repo=GATED_REPO), "gated"),
        (HubDataset(repo=DATASET_REPO, column="body"), "no column"),
    ],
)
def test_what_the_hub_refuses_is_said_with_a_remedy(hub: FakeHub, tmp_path: Path, dataset: HubDataset, words: str):
    """Nothing is written."""
    with pytest.raises(CalibrationRefusedError, match=words) as refused:
        fetch_dataset(dataset, Hub(endpoint=hub.endpoint, cache_dir=tmp_path / "cache"), tmp_path / "text")
    assert refused.value.problem is CalibrationProblem.DATASET_UNUSABLE
    assert refused.value.hint
    assert not (tmp_path / "text").exists()


def test_a_hub_that_does_not_answer_is_asked_again_later(online: Bench):
    """A failing server is infrastructure: the job goes back to the queue."""
    job_id = submit(online, f"hub:{BROKEN_REPO}")
    online.work()
    assert online.job(job_id).state is JobState.QUEUED
    with online.services.database.reading() as repository:
        error = repository.list_attempts(job_id)[0].error
    assert error is not None
    assert error.code == "hub_unavailable"
