"""What the header reader accepts is what the format's own library accepts, and nothing else gets through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from core.errors import ModelProblem, ModelRefusedError
from core.preflight.safetensors_header import read_header
from tests.core.preflight.folders import llama_tensors, write_raw, write_safetensors

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
names = st.text("abc.1", min_size=1, max_size=6)
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)


def refused(path: Path) -> ModelRefusedError:
    with pytest.raises(ModelRefusedError) as caught:
        read_header(path)
    assert caught.value.problem == ModelProblem.SAFETENSORS_CORRUPT
    assert path.name in str(caught.value)
    assert caught.value.hint
    return caught.value


@settings(max_examples=40)
@given(
    st.dictionaries(st.text("abc.1", min_size=1, max_size=6), st.tuples(st.sampled_from(DTYPES), shapes), max_size=5)
)
def test_agrees_with_the_library(tmp_path_factory: pytest.TempPathFactory, given: dict[str, Any]):
    """Names, dtypes, shapes and places of any file that the library writes are read as the library reads them."""
    path = tmp_path_factory.mktemp("file") / "model.safetensors"
    save_file({name: torch.zeros(shape, dtype=dtype) for name, (dtype, shape) in given.items()}, path)
    header = read_header(path)
    with safe_open(path, framework="pt") as stored:
        assert set(header) == set(stored.keys())
        for name, facts in header.items():
            tensor = stored.get_tensor(name)
            assert facts.shape == tuple(tensor.shape)
            assert facts.dtype == str(tensor.dtype).removeprefix("torch.")
            assert facts.nbytes == tensor.nbytes
            assert facts.elements == tensor.numel()


@settings(max_examples=60)
@given(st.data())
def test_every_truncation_is_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    """A file cut off anywhere, even by one byte, is refused."""
    path = tmp_path_factory.mktemp("file") / "model.safetensors"
    write_safetensors(path, llama_tensors(blocks=1))
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    refused(path)


def entry(begin: int = 0, end: int = 8, dtype: str = "F32", shape: tuple[int, ...] = (2,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (b"{", b""),
        (b"[]", b""),
        (b"\xff\xfe", b""),
        (b'{"a": 1}', b""),
        (b"[" * 5000, b""),
        (json.dumps({"a": {"dtype": "F32", "shape": [2]}}).encode(), bytes(8)),
        (json.dumps({"a": entry(shape=(-2,))}).encode(), bytes(8)),
        (json.dumps({"a": entry(dtype="F31")}).encode(), bytes(8)),
        (json.dumps({"a": entry(shape=(3,))}).encode(), bytes(8)),
        (json.dumps({"a": entry(begin=8, end=0)}).encode(), bytes(8)),
        (json.dumps({"a": entry(), "b": entry(4, 12)}).encode(), bytes(12)),
        (json.dumps({"a": entry(), "b": entry()}).encode(), bytes(8)),
        (json.dumps({"a": entry(), "b": entry(12, 20)}).encode(), bytes(20)),
        (json.dumps({"a": entry()}).encode(), bytes(9)),
        (b'{"a": ' + json.dumps(entry()).encode() + b', "a": ' + json.dumps(entry()).encode() + b"}", bytes(8)),
    ],
    ids=[
        "torn JSON",
        "a list",
        "not UTF-8",
        "entry is a number",
        "nested too deep",
        "no offsets",
        "negative dimension",
        "unknown dtype",
        "size and shape disagree",
        "range runs backwards",
        "ranges overlap",
        "ranges coincide",
        "a hole",
        "bytes after the end",
        "a name twice",
    ],
)
def test_malformed_headers_are_refused(tmp_path: Path, header: bytes, data: bytes):
    """Each way in which a header can lie about its file is refused by name."""
    path = tmp_path / "model.safetensors"
    write_raw(path, header, data)
    refused(path)


@pytest.mark.parametrize("length", [2**63, 100_000_001, 1000])
def test_a_header_length_beyond_the_file_is_refused_without_reading_it(tmp_path: Path, length: int):
    """A claimed length costs no memory: it is compared with the file first."""
    path = tmp_path / "model.safetensors"
    write_raw(path, b"{}", b"", length=length)
    refused(path)
