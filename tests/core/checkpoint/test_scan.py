"""One pass over the weights gives each file's hash and finds NaN and infinity, and takes nothing finite for them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from core.checkpoint import scan
from core.checkpoint.identity import model_sha256
from core.checkpoint.scan import scan_file, scan_weights
from core.errors import ModelProblem, ModelRefusedError
from core.preflight.safetensors_header import read_header
from core.preflight.source import inspect_source
from tests.core.preflight.folders import llama_tensors, make_llama, write_safetensors

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@settings(max_examples=150)
@given(st.data(), st.sampled_from(DTYPES))
def test_agrees_with_isfinite_on_any_bits(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, dtype: torch.dtype
):
    """On every pattern of bits the answer is torch's."""
    width = torch.finfo(dtype).bits // 8
    raw = data.draw(st.binary(min_size=width, max_size=12 * width).filter(lambda drawn: len(drawn) % width == 0))
    tensor = torch.frombuffer(bytearray(raw), dtype=dtype)
    path = tmp_path_factory.mktemp("file") / "x.safetensors"
    save_file({"x": tensor}, path)
    found = scan_file(path, read_header(path)).non_finite
    assert found == (set() if bool(torch.isfinite(tensor).all()) else {"x"})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_found_in_any_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, value: float):
    """The borders of the chunks in which the file is read hide nothing, and the hash is the whole file's."""
    monkeypatch.setattr(scan, "CHUNK_BYTES", 64)
    largest = torch.finfo(dtype).max
    path = tmp_path / "x.safetensors"
    for position in (0, 7, 8, 31, 32, 99):
        tensor = torch.full((100,), largest, dtype=dtype)
        save_file({"a": torch.zeros(3), "x": tensor}, path)
        assert not scan_file(path, read_header(path)).non_finite
        tensor[position] = value
        save_file({"a": torch.zeros(3), "x": tensor}, path)
        found = scan_file(path, read_header(path))
        assert found.non_finite == {"x"}
        assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_tensor_is_named(tmp_path: Path, threads: int):
    """A folder with NaN weights is refused by the first tensor's name; without them it has its usual hash."""
    folder = make_llama(tmp_path / "model")
    weights = scan_weights(folder, inspect_source(folder).tensors, threads)
    assert set(weights) == {"model.safetensors"}
    assert model_sha256(folder, weights) == model_sha256(folder)
    write_safetensors(folder / "model.safetensors", llama_tensors(), fill=b"\xff")
    facts = inspect_source(folder)
    with pytest.raises(ModelRefusedError) as caught:
        scan_weights(folder, facts.tensors, threads)
    assert caught.value.problem == ModelProblem.NON_FINITE_WEIGHTS
    assert next(iter(facts.tensors)) in str(caught.value)


def test_shards_are_read_side_by_side(tmp_path: Path):
    """Every shard's hash is its own, whichever thread read it, and the name is the first of all shards'."""
    tensors = {}
    for number in range(5):
        path = tmp_path / f"model-{number}.safetensors"
        save_file({f"t{number}": torch.full((1000,), float(number))}, path)
        tensors |= read_header(path)
    expected = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()}
    assert scan_weights(tmp_path, tensors, 3) == expected
    for number in (4, 1, 3):
        save_file({f"t{number}": torch.full((1000,), float("nan"))}, tmp_path / f"model-{number}.safetensors")
    with pytest.raises(ModelRefusedError, match="t1 holds"):
        scan_weights(tmp_path, tensors, 3)


def test_a_file_that_shrinks_is_refused(tmp_path: Path):
    """A file that is cut between its header's check and the pass is no endless wait and no silent success."""
    path = tmp_path / "x.safetensors"
    save_file({"x": torch.zeros(1000)}, path)
    header = read_header(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ModelRefusedError, match="shorter") as caught:
        scan_weights(tmp_path, header, 1)
    assert caught.value.problem == ModelProblem.SAFETENSORS_CORRUPT
