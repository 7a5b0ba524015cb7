"""One run writes both layouts; transformers with compressed-tensors computes what our dequantization computes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, CompressedTensorsConfig, PreTrainedModel

from core.calibration.windows import CalibrationWindows
from core.checkpoint.checksums import verify_sha256sums
from core.configs import BITS, Format, GPTQConfig, Order, RTNConfig
from core.errors import ArtifactInvalidError, InvalidConfigError
from core.evaluation.loading import load_model
from core.events import LinearQuantized
from core.formats.artifact_check import check_artifact
from core.pipeline import Resources, quantize_checkpoint
from core.preflight.rules import Severity, Target
from core.quantizers.base import SolvedLinear
from core.quantizers.rtn import RTNQuantizer
from tests.core.tiny import random_tokens, write_tiny_model

BOTH = (Format.GPTQ, Format.COMPRESSED_TENSORS)
INNER = "compressed-tensors"
TOKENS = random_tokens(2, 24, seed=5)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with two blocks and an untied head."""
    return write_tiny_model(tmp_path_factory.mktemp("source") / "model", num_hidden_layers=2)


def logits_of(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=TOKENS).logits
    return logits


def load_elsewhere(folder: Path, *, sym: bool = True) -> PreTrainedModel:
    """Loads with transformers, which calls compressed-tensors, as the model card says; no code of ours."""
    options = {} if sym else {"quantization_config": CompressedTensorsConfig(dequantize=True)}
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()
    return model


# transformers says that the folder's own config stays in force, and takes the loading option all the same.
@pytest.mark.filterwarnings("ignore:You passed `quantization_config`")
@pytest.mark.parametrize(("bits", "group_size"), [*((bits, 32) for bits in BITS), (3, -1)])
@pytest.mark.parametrize("sym", [True, False])
def test_transformers_computes_the_reference(bits: int, group_size: int, source: Path, tmp_path: Path, *, sym: bool):
    """For every width and kind of grid, and the two folders of one run hold the same model."""
    config = RTNConfig(bits=bits, group_size=group_size, sym=sym)
    quantize_checkpoint(source, tmp_path / "out", config, None, formats=BOTH)
    reference = logits_of(load_model(tmp_path / "out"))
    assert torch.equal(logits_of(load_model(tmp_path / "out" / INNER)), reference)
    found = logits_of(load_elsewhere(tmp_path / "out" / INNER, sym=sym))
    assert torch.allclose(found, reference, rtol=1e-4, atol=2e-3 * float(reference.abs().max()))
    assert ("dequantize=True" in (tmp_path / "out" / INNER / "README.md").read_text()) is not sym


def test_negative_scales_survive(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Signed grids: transformers computes with the sign, and leaving it out would be seen."""
    plain = RTNQuantizer.convert

    def signed(self: RTNQuantizer, W_OI: torch.Tensor, prepared: None) -> SolvedLinear:
        solved = plain(self, W_OI, prepared)
        signs = torch.ones_like(solved.weight.scales_OG)
        signs[::2] = -1
        return replace(solved, weight=replace(solved.weight, scales_OG=solved.weight.scales_OG * signs))

    monkeypatch.setattr(RTNQuantizer, "convert", signed)
    quantize_checkpoint(source, tmp_path / "out", RTNConfig(bits=4, group_size=32), None, formats=BOTH)
    reference = logits_of(load_model(tmp_path / "out"))
    found = logits_of(load_elsewhere(tmp_path / "out" / INNER))
    assert torch.allclose(found, reference, rtol=1e-4, atol=1e-3 * float(reference.abs().max()))
    stored = load_file(tmp_path / "out" / INNER / "model.safetensors")
    assert bool((stored["model.layers.0.mlp.up_proj.weight_scale"] < 0).any())


def test_a_gptq_run_writes_both_without_a_second_solve(source: Path, tmp_path: Path):
    """Each linear is solved once; the inner folder is a whole artifact that passes its check; the sums cover it."""
    windows = CalibrationWindows(tokens_NT=random_tokens(8, 32), sha256="0" * 64, tokens_available=256)
    config, events = GPTQConfig(bits=4, group_size=32, sym=False), []
    quantize_checkpoint(source, tmp_path / "out", config, windows, formats=BOTH, on_event=events.append)
    assert sum(isinstance(event, LinearQuantized) for event in events) == 14
    inner = tmp_path / "out" / INNER
    assert f"{INNER}/model.safetensors" in verify_sha256sums(tmp_path / "out")
    verify_sha256sums(inner)
    (needs_floats,) = check_artifact(inner, (Target.TRANSFORMERS,))
    assert needs_floats.severity is Severity.SLOWER
    assert [finding.target for finding in check_artifact(inner, (Target.GPTQMODEL,))] == [Target.GPTQMODEL]
    assert not (inner / "quantize_config.json").exists()
    assert "pip install transformers compressed-tensors" in (inner / "README.md").read_text()
    packed, twin = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", inner))
    name = "model.layers.1.mlp.down_proj"
    assert torch.equal(twin[f"{name}.weight_packed"], packed[f"{name}.qweight"].T)
    assert torch.equal(twin[f"{name}.weight_scale"], packed[f"{name}.scales"].T)
    assert torch.equal(twin[f"{name}.weight_zero_point"], packed[f"{name}.qzeros"].T)
    assert twin[f"{name}.weight_shape"].tolist() == [64, 128]


def test_a_finished_work_folder_can_be_written_in_another_format(source: Path, tmp_path: Path):
    """The format is no part of what a run resumes by: nothing is solved again."""
    config, work, events = RTNConfig(group_size=32), tmp_path / "work", []
    quantize_checkpoint(source, tmp_path / "first", config, None, work_dir=work, resources=Resources(keep_work=True))
    options: dict[str, Any] = {"formats": BOTH[::-1], "work_dir": work, "on_event": events.append}
    quantize_checkpoint(source, tmp_path / "second", config, None, **options)
    assert not any(isinstance(event, LinearQuantized) for event in events)
    inner = tmp_path / "second" / "gptq" / "model.safetensors"
    assert inner.read_bytes() == (tmp_path / "first" / "model.safetensors").read_bytes()


def test_the_layout_can_be_the_only_one(source: Path, tmp_path: Path):
    """Then it is the artifact folder itself."""
    config = RTNConfig(bits=3, group_size=32)
    quantize_checkpoint(source, tmp_path / "out", config, None, formats=[Format.COMPRESSED_TENSORS])
    quantization = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert quantization["quant_method"] == "compressed-tensors"
    assert quantization["meta"]["method"] == "rtn"
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert torch.isfinite(logits_of(load_model(tmp_path / "out"))).all()


def test_scattered_groups_and_conv1d_are_refused(source: Path, tmp_path: Path):
    """No reader is left that gathers columns, and none looks into Conv1D; refused before any work, with the reason."""
    windows = CalibrationWindows(tokens_NT=random_tokens(8, 32), sha256="0" * 64, tokens_available=256)
    config = GPTQConfig(bits=4, group_size=32, order=Order.DESC_ACT)
    with pytest.raises(InvalidConfigError, match="static groups"):
        quantize_checkpoint(source, tmp_path / "out", config, windows, formats=BOTH)
    conv1d = write_tiny_model(tmp_path / "gpt2", "gpt2")
    with pytest.raises(InvalidConfigError, match="Conv1D"):
        quantize_checkpoint(conv1d, tmp_path / "out", RTNConfig(group_size=32), None, formats=BOTH)
    assert not (tmp_path / "out").exists()


def test_an_inner_folder_that_fails_its_check_keeps_the_artifact_from_appearing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Neither folder is there, the work folder still is."""
    monkeypatch.setattr("core.formats.compressed_tensors.shape_tensor", lambda *_: torch.tensor([1, 2]))
    with pytest.raises(ArtifactInvalidError, match="weight_shape"):
        quantize_checkpoint(source, tmp_path / "out", RTNConfig(group_size=32), None, formats=BOTH)
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == ["out.work"]
