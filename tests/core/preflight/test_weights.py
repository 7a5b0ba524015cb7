"""NaN and infinity are found in every float dtype, wherever they stand, and nothing finite is taken for them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from core.errors import ModelProblem, ModelRefusedError
from core.preflight import weights
from core.preflight.safetensors_header import read_header
from core.preflight.source import inspect_source
from core.preflight.weights import has_non_finite, refuse_non_finite
from tests.core.preflight.folders import llama_tensors, make_llama, write_safetensors

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@settings(max_examples=150, deadline=None)
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
    assert has_non_finite(path.parent, read_header(path)["x"]) == (not bool(torch.isfinite(tensor).all()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_found_in_any_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, value: float):
    """The borders of the chunks in which the file is read hide nothing."""
    monkeypatch.setattr(weights, "CHUNK_BYTES", 64)
    largest = torch.finfo(dtype).max
    for position in (0, 7, 8, 31, 32, 99):
        tensor = torch.full((100,), largest, dtype=dtype)
        path = tmp_path / "x.safetensors"
        save_file({"a": torch.zeros(3), "x": tensor}, path)
        assert not has_non_finite(tmp_path, read_header(path)["x"])
        tensor[position] = value
        save_file({"a": torch.zeros(3), "x": tensor}, path)
        assert has_non_finite(tmp_path, read_header(path)["x"])


def test_the_tensor_is_named(tmp_path: Path):
    """A folder with NaN weights is refused before any work, by name; the same folder without them passes."""
    folder = make_llama(tmp_path / "model")
    refuse_non_finite(folder, inspect_source(folder))
    write_safetensors(folder / "model.safetensors", llama_tensors(), fill=b"\xff")
    with pytest.raises(ModelRefusedError) as caught:
        refuse_non_finite(folder, inspect_source(folder))
    assert caught.value.problem == ModelProblem.NON_FINITE_WEIGHTS
    assert "model.embed_tokens.weight" in str(caught.value)
