"""Reading a model folder tensor by tensor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from core.checkpoint.layout import DTYPE_CODES, LayoutError, read_entries
from core.checkpoint.reader import CheckpointReader
from core.errors import ModelProblem, ModelRefusedError

TENSORS = {
    "a.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4).bfloat16(),
    "b.weight": torch.arange(6).half(),
    "c": torch.tensor(3, dtype=torch.int64),
    "empty": torch.empty(0, 4),
}


def write_indexed(folder: Path) -> None:
    """Writes the tensors over two shards with an index."""
    save_file({"a.weight": TENSORS["a.weight"]}, folder / "model-00001-of-00002.safetensors")
    rest = {name: tensor for name, tensor in TENSORS.items() if name != "a.weight"}
    save_file(rest, folder / "model-00002-of-00002.safetensors")
    weight_map = dict.fromkeys(rest, "model-00002-of-00002.safetensors")
    weight_map["a.weight"] = "model-00001-of-00002.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.fixture(params=["single", "indexed"])
def model_dir(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder written by the safetensors library, in one file or two."""
    if request.param == "single":
        save_file(TENSORS, tmp_path / "model.safetensors")
    else:
        write_indexed(tmp_path)
    return tmp_path


def test_tensors_are_those_of_the_safetensors_library(model_dir: Path):
    """Names, shapes, dtypes, sizes and bytes agree with what the reference library wrote."""
    with CheckpointReader(model_dir) as reader:
        assert reader.names() == tuple(sorted(TENSORS))
        for name, tensor in TENSORS.items():
            assert torch.equal(reader.tensor(name), tensor)
            assert (reader.shape(name), reader.dtype(name)) == (tuple(tensor.shape), tensor.dtype)
            assert reader.nbytes(name) == tensor.numel() * tensor.element_size()
        assert list(reader.tensors(["c", "b.weight"])) == ["c", "b.weight"]
        assert "c" in reader
        assert "d" not in reader


def test_a_tensor_is_a_copy_of_its_own(model_dir: Path):
    """Writing into a tensor changes neither the file nor the next read."""
    with CheckpointReader(model_dir) as reader:
        reader.tensor("a.weight").zero_()
        assert torch.equal(reader.tensor("a.weight"), TENSORS["a.weight"])


@pytest.mark.parametrize("dtype", DTYPE_CODES, ids=str)
def test_every_dtype_is_read(dtype: torch.dtype, tmp_path: Path):
    """Each dtype of the format comes back with its bytes."""
    tensor = torch.arange(16, dtype=torch.uint8).view(torch.uint8).clamp(max=1).view(dtype)
    save_file({"x": tensor}, tmp_path / "model.safetensors")
    with CheckpointReader(tmp_path) as reader:
        assert reader.dtype("x") == dtype
        assert torch.equal(reader.tensor("x").view(torch.uint8), tensor.view(torch.uint8))


def test_a_closed_reader_knows_nothing(model_dir: Path):
    """After close, asking is an error."""
    reader = CheckpointReader(model_dir)
    reader.close()
    with pytest.raises(KeyError):
        reader.tensor("c")


def refused(folder: Path) -> ModelRefusedError:
    """Returns the refusal of a folder."""
    with pytest.raises(ModelRefusedError) as caught:
        CheckpointReader(folder)
    return caught.value


def test_a_folder_without_weights_is_refused(tmp_path: Path):
    """No safetensors at all."""
    assert refused(tmp_path).problem == ModelProblem.WEIGHTS_MISSING


def test_a_missing_shard_is_named(tmp_path: Path):
    """The index names a file that is not there."""
    write_indexed(tmp_path)
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    error = refused(tmp_path)
    assert error.problem == ModelProblem.SHARD_MISSING
    assert "model-00001-of-00002.safetensors" in error.detail


def test_an_index_cannot_lead_out_of_the_folder(tmp_path: Path):
    """A file name with a path in it is refused, even where such a file exists."""
    inner = tmp_path / "model"
    inner.mkdir()
    save_file({"x": torch.zeros(2)}, tmp_path / "outside.safetensors")
    (inner / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "../outside.safetensors"}}))
    assert refused(inner).problem == ModelProblem.SAFETENSORS_CORRUPT


def test_a_tensor_that_its_shard_lacks_is_named(tmp_path: Path):
    """The index promises a tensor that the file does not hold."""
    write_indexed(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    values = json.loads(index.read_text())
    values["weight_map"]["ghost"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(values))
    assert "ghost" in refused(tmp_path).detail


@pytest.mark.parametrize("text", ["", "[]", '{"weight_map": 3}', "{}"])
def test_a_broken_index_is_refused(text: str, tmp_path: Path):
    """An index that is no JSON object with a weight_map."""
    (tmp_path / "model.safetensors.index.json").write_text(text)
    assert "model.safetensors.index.json" in refused(tmp_path).detail


@pytest.mark.parametrize("kept", [0, 4, 8, 40, -1])
def test_a_cut_file_is_refused(kept: int, tmp_path: Path):
    """Whatever the place where the file ends too early."""
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    path.write_bytes(path.read_bytes()[:kept])
    assert refused(tmp_path).problem == ModelProblem.SAFETENSORS_CORRUPT


def test_a_file_cut_after_opening_is_refused(tmp_path: Path):
    """A read past the end is an error with the model's name for it, not a short tensor."""
    path = tmp_path / "model.safetensors"
    save_file({"x": torch.zeros(100)}, path)
    with CheckpointReader(tmp_path) as reader:
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(ModelRefusedError, match="changed while it was read"):
            reader.tensor("x")


def test_a_malformed_header_is_told_by_file(tmp_path: Path):
    """What `core.preflight` finds wrong with a header reaches the caller as this package's error."""
    path = tmp_path / "x.safetensors"
    path.write_bytes((2).to_bytes(8, "little") + b"[]")
    with pytest.raises(LayoutError, match="not a JSON object"):
        read_entries(path)
