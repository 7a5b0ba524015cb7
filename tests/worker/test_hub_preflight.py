"""A hub model that a job cannot run on: refused by its small files and headers, in the words of a local folder."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DryRunFileInfo
from safetensors.numpy import load_file, save_file

from core.configs import CalibrationConfig, GPTQConfig, RTNConfig
from core.errors import CoreError
from core.preflight.model_files import INDEX_FILE, SINGLE_FILE
from core.preflight.safetensors_header import read_header
from store.jobs import JobError, JobState
from tests.core.preflight.folders import BYTES, Tensors, write_config, write_raw, write_safetensors
from tests.worker.bench import Bench
from tests.worker.fake_hub import BRANCH, COMMIT, REPO, FakeHub, fake_hub
from worker import hub_headers
from worker.download import explain
from worker.hub_headers import FIRST_BYTES, HubFiles, lay_out
from worker.preflight import check_attempt, folder_bytes, run_request
from worker.protocol import Asked, DatasetSpec

MODEL = {"source": "hub", "repo": REPO, "revision": BRANCH}
WIDE = 1 << 18
GPTQ = {
    "quantization": GPTQConfig(group_size=32).to_dict(),
    "calibration": {"set": "cal_unknown", **CalibrationConfig(samples=1, seq_len=16).to_dict()},
}


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    """What the hub serves: a copy of the tiny model, which a test may spoil."""
    return shutil.copytree(tiny_model, tmp_path / "hub")


@pytest.fixture
def hub(folder: Path) -> Iterator[FakeHub]:
    """The hub."""
    with fake_hub(folder) as served:
        yield served


@pytest.fixture
def online(bench: Bench, hub: FakeHub) -> Bench:
    """A bench whose worker uses that hub."""
    settings = bench.services.settings.model_copy(update={"hub_endpoint": hub.endpoint})
    return Bench(replace(bench.services, settings=settings), bench.tiny_model)


def pickles_only(folder: Path) -> Mapping[str, Any]:
    """Leaves weights that are not safetensors."""
    (folder / SINGLE_FILE).unlink()
    return {}


def own_code(folder: Path) -> Mapping[str, Any]:
    """Lets the config name code."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "modeling.Model"}}))
    return {}


def no_decoder(folder: Path) -> Mapping[str, Any]:
    """Makes an encoder of it."""
    write_config(folder, model_type="bert", architectures=["BertModel"])
    return {}


def no_tokenizer(folder: Path) -> Mapping[str, Any]:
    """Takes the tokenizer away."""
    (folder / "tokenizer.json").unlink()
    return {}


def odd_groups(_: Path) -> Mapping[str, Any]:
    """Asks for groups that do not divide the model's widths."""
    return {"quantization": RTNConfig(group_size=24).to_dict()}


def broken_header(folder: Path) -> Mapping[str, Any]:
    """Lets a shard claim a longer header than it has bytes."""
    write_raw(folder / SINGLE_FILE, b"{}", b"\0" * 1000, length=10**6)
    return {}


def packed_weights(folder: Path) -> Mapping[str, Any]:
    """Stores what another tool has quantized."""
    write_safetensors(folder / SINGLE_FILE, {"model.layers.0.mlp.up_proj.qweight": ("I32", (4, 32))})
    return {}


def one_shard_gone(folder: Path) -> Mapping[str, Any]:
    """Names a shard in the index that is not there."""
    split(folder)
    (folder / "model-2.safetensors").unlink()
    return {}


def split(folder: Path) -> None:
    """Writes the weights as two shards and an index."""
    tensors = load_file(folder / SINGLE_FILE)
    weight_map = {name: f"model-{1 + position % 2}.safetensors" for position, name in enumerate(tensors)}
    for file in set(weight_map.values()):
        save_file({name: tensors[name] for name, place in weight_map.items() if place == file}, folder / file)
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / SINGLE_FILE).unlink()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (pickles_only, "weights_missing"),
        (own_code, "remote_code_refused"),
        (no_decoder, "unsupported_architecture"),
        (no_tokenizer, "tokenizer_missing"),
        (odd_groups, "invalid_config"),
        (broken_header, "safetensors_corrupt"),
        (packed_weights, "already_quantized"),
        (one_shard_gone, "shard_missing"),
    ],
)
def test_a_model_that_cannot_be_quantized_is_not_fetched(
    online: Bench, hub: FakeHub, folder: Path, spoil: Callable[[Path], Mapping[str, Any]], code: str
):
    """The job fails at once with what a local folder of these files would be refused with; no shard was asked for."""
    asked = {"quantization": RTNConfig(group_size=32).to_dict(), **spoil(folder)}
    local = refusal(folder, Asked(**asked))
    (folder / "pytorch_model.bin").write_text("not wanted")
    job_id = online.add(MODEL, **asked).id
    online.work()
    job = online.job(job_id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert (job.error.code, job.error.stage, job.error.retryable) == (code, "downloading", False)
    assert (local.code, str(local), local.hint) == (code, job.error.message, job.error.hint)
    assert not shards(hub.downloaded)
    assert not online.folder_left(job_id)


def test_a_model_that_memory_cannot_hold_is_not_fetched(online: Bench, hub: FakeHub, folder: Path):
    """Its headers tell how large its Hessians are; the disk has room for its few bytes, and only headers came over."""
    tensors = wide_model(folder)
    job_id = online.add(MODEL, **GPTQ).id
    online.work()
    error = first_error(online, job_id)
    assert (error.code, error.stage, error.retryable) == ("insufficient_resources", "downloading", True)
    assert "GB of memory" in error.message
    assert hub.downloaded
    assert not shards(hub.downloaded)
    fetched = online.services.settings.cache_dir / "hub"
    assert folder_bytes(fetched) < sum(BYTES[dtype] * math.prod(shape) for dtype, shape in tensors.values()) / 10


def wide_model(folder: Path) -> Tensors:
    """Makes a decoder of few bytes whose Hessians take a terabyte."""
    write_config(folder, num_hidden_layers=1, hidden_size=WIDE)
    tensors: Tensors = {
        "model.embed_tokens.weight": ("BF16", (16, WIDE)),
        "model.layers.0.mlp.up_proj.weight": ("BF16", (16, WIDE)),
    }
    write_safetensors(folder / SINGLE_FILE, tensors)
    return tensors


def test_a_model_in_shards_is_looked_at_and_then_fetched(online: Bench, hub: FakeHub, folder: Path):
    """Each shard's header comes first; the job runs on what was fetched after it."""
    split(folder)
    job_id = online.add(MODEL).id
    online.work()
    assert online.job(job_id).state is JobState.SUCCEEDED, online.job(job_id).error
    names = {"model-1.safetensors", "model-2.safetensors"}
    assert sorted(hub.parts) == [(name, FIRST_BYTES) for name in sorted(names)]
    assert shards(hub.downloaded) == names


def test_a_connection_that_breaks_is_tried_again(online: Bench, hub: FakeHub):
    """One broken answer costs a second, not the attempt."""
    hub.cut_parts = 1
    job_id = online.add(MODEL).id
    online.work()
    job = online.job(job_id)
    assert (job.state, job.failures) == (JobState.SUCCEEDED, 0), job.error
    assert len(hub.parts) == 2


def test_a_hub_that_breaks_off_is_unavailable(hub: FakeHub, monkeypatch: pytest.MonkeyPatch):
    """Errors of the hub's own client are infrastructure, which another attempt may not meet."""
    monkeypatch.setattr(hub_headers, "TRIES", 0)
    hub.cut_parts = 1
    with pytest.raises(Exception, match="disconnected") as caught:
        files(hub).read_start(SINGLE_FILE, 8)
    spec = DatasetSpec(
        name="words", revision=None, endpoint=hub.endpoint, token=None, cache_dir=Path(), out=Path(), silence_seconds=1
    )
    assert explain(caught.value, spec).code == "hub_unavailable"


@pytest.mark.parametrize("ranges", [True, False])
def test_only_the_start_of_a_file_is_read(hub: FakeHub, folder: Path, ranges: bool):
    """Also from a mirror that answers with the whole file; a shorter file is read to its end."""
    hub.ranges = ranges
    data = (folder / SINGLE_FILE).read_bytes()
    assert files(hub).read_start(SINGLE_FILE, 100) == data[:100]
    assert files(hub).read_start(SINGLE_FILE, 10**7) == data


def test_what_is_laid_out_reads_like_the_model(hub: FakeHub, folder: Path, tmp_path: Path):
    """A header longer than the first request comes with a second one; size and tensors are the file's, data is none."""
    path = folder / SINGLE_FILE
    save_file(load_file(path), path, metadata={"padding": "x" * FIRST_BYTES})
    (out := tmp_path / "out").mkdir()
    lay_out([listed(path)], folder, out, files(hub).read_start)
    laid = out / SINGLE_FILE
    assert read_header(laid) == read_header(path)
    assert len(hub.parts) == 2
    start = hub.parts[1][1]
    assert laid.read_bytes()[:start] == path.read_bytes()[:start]
    assert not any(laid.read_bytes()[start:])
    assert {file.name for file in out.iterdir()} == {file.name for file in folder.iterdir()}


def test_a_shard_that_is_here_is_not_asked_for(folder: Path, tmp_path: Path):
    """What an earlier attempt fetched is read where it lies."""
    (out := tmp_path / "out").mkdir()

    def unreachable(name: str, count: int) -> bytes:
        raise AssertionError(f"{count} bytes of {name} were asked for")

    lay_out([listed(folder / SINGLE_FILE, cached=True)], folder, out, unreachable)
    assert (out / SINGLE_FILE).read_bytes() == (folder / SINGLE_FILE).read_bytes()


def test_holes_and_links_take_no_room(tmp_path: Path, tiny_model: Path):
    """A folder's bytes are what it takes of the disk."""
    assert folder_bytes(tmp_path / "absent") == 0
    (tmp_path / "link").symlink_to(tiny_model / SINGLE_FILE)
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(10**9)
    empty = folder_bytes(tmp_path)
    (tmp_path / "full").write_bytes(b"x" * 10**6)
    assert empty < 10**5
    assert 10**6 <= folder_bytes(tmp_path) - empty < 10**6 + 10**5


def refusal(folder: Path, asked: Asked) -> CoreError:
    """Returns what a local folder is refused with."""
    with pytest.raises(CoreError) as caught:
        check_attempt(run_request(asked), folder, folder.parent / "job" / "blocks", writes_text=False)
    return caught.value


def first_error(bench: Bench, job_id: str) -> JobError:
    """Returns why a job's first attempt failed."""
    with bench.services.database.reading() as repository:
        error = repository.list_attempts(job_id)[0].error
    assert error is not None
    return error


def shards(names: set[str]) -> set[str]:
    """Returns those that hold weights."""
    return {name for name in names if name.endswith(".safetensors")}


def files(hub: FakeHub) -> HubFiles:
    """Returns the model's place on the hub."""
    return HubFiles(repo=REPO, commit=COMMIT, endpoint=hub.endpoint, token=None)


def listed(path: Path, *, cached: bool = False) -> DryRunFileInfo:
    """Returns a file as the hub's client lists it."""
    return DryRunFileInfo(
        commit_hash=COMMIT,
        file_size=path.stat().st_size,
        filename=path.name,
        local_path=str(path),
        is_cached=cached,
        will_download=not cached,
    )
