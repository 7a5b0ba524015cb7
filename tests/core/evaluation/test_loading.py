"""A folder is loaded as what it stands for: float weights as they are, packed ones as scale times code minus zero."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.configs import BITS
from core.errors import ArtifactInvalidError, ModelProblem, ModelRefusedError
from core.evaluation.loading import load_model, load_tokenizer
from core.model.structure import linear_weight
from tests.core.evaluation.models import FAMILIES, quantize_by_hand, save_model

TOKENS = torch.arange(24).reshape(2, 12)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_float_folder_gives_the_logits_of_transformers(tmp_path: Path, family: str):
    """The loader fills modules by itself; the model is the one that was saved, tied head included."""
    model = save_model(tmp_path, family)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(TOKENS).logits, model(TOKENS).logits)


def test_weights_of_another_dtype_are_widened(tmp_path: Path):
    """bfloat16 on disk is float32 in memory by default, and what is asked for otherwise."""
    save_model(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in load_model(tmp_path).parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in load_model(tmp_path, torch.bfloat16).parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("sym", [True, False])
def test_an_artifact_gives_the_reference_dequantization(tmp_path: Path, family: str, bits: int, *, sym: bool):
    """Each linear, Conv1D too, is s (c - z) exactly; everything else is as it was in the float model."""
    float_model = save_model(tmp_path / "float", family)
    expected = quantize_by_hand(tmp_path / "float", tmp_path / "packed", bits=bits, sym=sym)
    loaded = load_model(tmp_path / "packed")
    modules = dict(loaded.named_modules())
    for path, W_OI in expected.items():
        assert torch.equal(linear_weight(modules[path]), W_OI)
    packed = {f"{path}.weight" for path in expected}
    biases = {f"{path}.bias" for path in expected}
    state = loaded.state_dict()
    for name, tensor in float_model.state_dict().items():
        if name in biases:
            assert torch.allclose(state[name], tensor, atol=1e-3)
        elif name not in packed:
            assert torch.equal(state[name], tensor)
    with torch.no_grad():
        assert torch.isfinite(loaded(TOKENS).logits).all()


def test_model_and_tokenizer_code_is_refused(tmp_path: Path):
    """A config that asks for code is refused before transformers sees the folder."""
    save_model(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["x.Y", null]}}')
    for load in (load_model, load_tokenizer):
        with pytest.raises(ModelRefusedError) as caught:
            load(tmp_path)
        assert caught.value.problem == ModelProblem.REMOTE_CODE


@pytest.mark.parametrize(
    "quantization",
    [
        {"quant_method": "awq", "bits": 4},
        {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "checkpoint_format": "marlin"},
        {"quant_method": "gptq", "bits": "4", "group_size": 32, "sym": True, "checkpoint_format": "gptq"},
        [],
    ],
)
def test_a_layout_that_is_not_ours_is_refused(tmp_path: Path, quantization: object):
    """Another program's quantization is not guessed at."""
    save_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}))
    with pytest.raises(ArtifactInvalidError) as caught:
        load_model(tmp_path)
    assert caught.value.file == "config.json"


def test_an_artifact_with_a_lost_tensor_is_refused(tmp_path: Path):
    """Scales that are gone cannot be made up."""
    save_model(tmp_path / "float")
    quantize_by_hand(tmp_path / "float", tmp_path / "packed", bits=4, sym=True)
    tensors = load_file(tmp_path / "packed" / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.scales"]
    save_file(tensors, tmp_path / "packed" / "model.safetensors")
    with pytest.raises(ArtifactInvalidError) as caught:
        load_model(tmp_path / "packed")
    assert "down_proj" in str(caught.value)


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path):
    """The tokenizer's absence is answered in our words."""
    save_model(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelRefusedError) as caught:
        load_tokenizer(tmp_path)
    assert caught.value.problem == ModelProblem.TOKENIZER_MISSING
