"""Per-linear options through the whole engine: solved, reported, written, loaded back, resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from core.calibration.windows import CalibrationWindows
from core.configs import Format, GPTQConfig, RTNConfig
from core.errors import InvalidConfigError, RunStoppedError
from core.evaluation.loading import load_model
from core.formats.artifact_check import check_artifact
from core.model.modules import QuantizedLinear
from core.model.structure import linear_weight
from core.pipeline import quantize_checkpoint
from core.preflight.memory import TOKENS_PER_BATCH
from core.preflight.rules import Target
from core.quantization import convert, prepare
from core.solver.rtn import round_to_nearest
from tests.core.stops import stop_in
from tests.core.tiny import random_tokens, tiny_model, write_tiny_model

DYNAMIC = {
    r"-:model\.layers\.1\.mlp\.": {},
    r"+:.*\.down_proj": {"bits": 8, "group_size": -1},
    r"+:.*\.(k|v)_proj": {"bits": 3, "damp_percent": 0.01},
}
CONFIG = GPTQConfig(bits=4, group_size=32, dynamic=DYNAMIC)
TOKENS = random_tokens(2, 24, seed=5)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with three blocks."""
    return write_tiny_model(tmp_path_factory.mktemp("source") / "model")


def windows(samples: int = 8) -> CalibrationWindows:
    tokens = random_tokens(samples, 32)
    return CalibrationWindows(tokens_NT=tokens, sha256="0" * 64, tokens_available=tokens.numel())


def logits_of(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=TOKENS).logits
    return logits


def test_bits_and_groups_are_those_of_the_patterns(source: Path, tmp_path: Path):
    """In the report, in the packed tensors and in quantize_config.json; a skipped linear stays as it was."""
    out = tmp_path / "out"
    report = quantize_checkpoint(source, out, CONFIG, windows())
    grids = {linear.name: (linear.bits, linear.group_size) for linear in report.linears}
    assert len(grids) == 21 - 3
    assert grids["model.layers.0.mlp.down_proj"] == (8, -1)
    assert grids["model.layers.2.self_attn.v_proj"] == (3, 32)
    assert grids["model.layers.0.self_attn.q_proj"] == (4, 32)
    stored, original = load_file(out / "model.safetensors"), load_file(source / "model.safetensors")
    assert stored["model.layers.0.mlp.down_proj.qweight"].shape == (128 * 8 // 32, 64)
    assert stored["model.layers.0.self_attn.k_proj.qweight"].shape == (64 * 3 // 32, 32)
    kept = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(stored[kept], original[kept])
    settings = json.loads((out / "quantize_config.json").read_text())
    assert settings["dynamic"][r"+:.*\.(k|v)_proj"] == {"bits": 3}
    assert list(settings["dynamic"]) == list(DYNAMIC)
    assert "dynamic" not in settings["meta"]
    assert check_artifact(out, (Target.GPTQMODEL,)) == []
    card = (out / "README.md").read_text()
    assert "; 2 of them with bits=8, group_size=-1, sym=true" in card
    assert r"linears like `model\.layers\.1\.mlp\.` stay in float" in card


def test_disk_and_memory_agree_and_the_artifact_loads_as_solved(source: Path, tmp_path: Path):
    """The loaded weights are those that convert puts into the modules, linear by linear."""
    calibration = windows()
    quantize_checkpoint(source, tmp_path / "out", CONFIG, calibration)
    model = prepare(tiny_model(), CONFIG)
    with torch.no_grad():
        for batch in calibration.tokens_NT.split(TOKENS_PER_BATCH // calibration.seq_len):
            model(input_ids=batch)
    converted = dict(convert(model).named_modules())
    solved = {path: module for path, module in converted.items() if isinstance(module, QuantizedLinear)}
    assert len(solved) == 18
    assert isinstance(converted["model.layers.1.mlp.up_proj"], torch.nn.Linear)
    loaded = dict(load_model(tmp_path / "out").named_modules())
    for path, module in solved.items():
        assert torch.equal(linear_weight(loaded[path]), module.dequantize())


def test_linears_of_one_input_set_are_each_solved_with_their_options(source: Path, tmp_path: Path):
    """q, k and v share a Hessian, not a grid: each is what a run with its options for all gives it in block 0."""
    quantize_checkpoint(source, tmp_path / "mixed", CONFIG, windows())
    three = GPTQConfig(bits=3, group_size=32, damp_percent=0.01)
    for name, config in {"q_proj": GPTQConfig(bits=4, group_size=32), "v_proj": three}.items():
        quantize_checkpoint(source, tmp_path / name, config, windows())
        mixed, alone = (load_file(tmp_path / folder / "model.safetensors") for folder in ("mixed", name))
        prefix = f"model.layers.0.self_attn.{name}"
        assert torch.equal(mixed[f"{prefix}.qweight"], alone[f"{prefix}.qweight"])


def test_a_stopped_run_resumes_to_the_same_bytes(source: Path, tmp_path: Path):
    """Finished blocks are restored with each linear's own grid."""
    listen, should_stop = stop_in(2)
    straight, out = tmp_path / "straight", tmp_path / "out"
    quantize_checkpoint(source, straight, CONFIG, windows())
    with pytest.raises(RunStoppedError):
        quantize_checkpoint(source, out, CONFIG, windows(), on_event=listen, should_stop=should_stop)
    for file in (tmp_path / "out.work").glob("*activations*"):
        file.unlink()
    quantize_checkpoint(source, out, CONFIG, windows())
    assert (out / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()


def test_one_asymmetric_linear_makes_the_checkpoint_version_2(source: Path, tmp_path: Path):
    """The version is one for all; symmetric linears are read back from it too."""
    config = RTNConfig(bits=4, group_size=32, dynamic={r"+:.*\.o_proj": {"sym": False}})
    quantize_checkpoint(source, tmp_path / "out", config, None)
    settings = json.loads((tmp_path / "out" / "quantize_config.json").read_text())
    assert settings["checkpoint_format"] == "gptq_v2"
    assert check_artifact(tmp_path / "out") == []
    loaded, original = load_model(tmp_path / "out"), load_model(source)
    for name, sym in (("o_proj", False), ("q_proj", True)):
        path = f"model.layers.0.self_attn.{name}"
        rounded = round_to_nearest(linear_weight(original.get_submodule(path)), bits=4, group_size=32, sym=sym)
        assert torch.equal(linear_weight(loaded.get_submodule(path)), rounded.dequantize())


def test_transformers_loads_the_mixture_as_compressed_tensors(source: Path, tmp_path: Path):
    """Config groups name each linear; three widths, two group sizes and float linears in one model."""
    quantize_checkpoint(source, tmp_path / "out", CONFIG, windows(), formats=tuple(Format))
    inner = tmp_path / "out" / "compressed-tensors"
    groups = json.loads((inner / "config.json").read_text())["quantization_config"]["config_groups"]
    assert sorted((group["weights"]["num_bits"], len(group["targets"])) for group in groups.values()) == [
        (3, 6),
        (4, 10),
        (8, 2),
    ]
    reference = logits_of(load_model(tmp_path / "out"))
    assert torch.equal(logits_of(load_model(inner)), reference)
    found = logits_of(AutoModelForCausalLM.from_pretrained(inner, dtype=torch.float32).eval())
    assert torch.allclose(found, reference, rtol=1e-4, atol=2e-3 * float(reference.abs().max()))
    assert check_artifact(inner, (Target.TRANSFORMERS,)) == []


def test_an_idle_pattern_is_refused_before_any_work(source: Path, tmp_path: Path):
    """Nothing is left behind."""
    with pytest.raises(InvalidConfigError, match="matches no linear"):
        quantize_checkpoint(source, tmp_path / "out", RTNConfig(group_size=32, dynamic={"+:lm_head": {}}), None)
    assert not list(tmp_path.iterdir())
