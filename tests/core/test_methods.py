"""Every method runs on the one walk: the same codes from disk and memory, the same bytes after a stop, every format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from core.calibration.windows import CalibrationWindows
from core.configs import AdaRoundConfig, AWQConfig, Format, QuantizationConfig
from core.errors import RunStoppedError
from core.evaluation.loading import load_model
from core.formats.gptq import from_gptq_tensors
from core.model.modules import QuantizedLinear
from core.pipeline import quantize_checkpoint
from core.preflight.memory import TOKENS_PER_BATCH
from core.quantization import convert, prepare
from core.report import QuantizationReport
from tests.core.stops import stop_in
from tests.core.tiny import random_tokens, write_tiny_model

CONFIGS = [AdaRoundConfig(bits=4, group_size=32, iterations=20), AWQConfig(bits=4, group_size=32)]
MEASURED = {"quantization_report.json", "SHA256SUMS"}
every_method = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: str(config.method))


def _windows(samples: int = 80) -> CalibrationWindows:
    tokens = random_tokens(samples, 32)
    return CalibrationWindows(tokens_NT=tokens, sha256="0" * 64, tokens_available=tokens.numel())


def _bytes(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in MEASURED]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model with a few channels that are many times larger than the others, as trained decoders have them."""
    folder = write_tiny_model(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    for name in tensors:
        if name.endswith(("post_attention_layernorm.weight", "v_proj.weight", "up_proj.weight")):
            tensors[name][::13] *= 8
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@every_method
def test_disk_and_memory_give_the_same_codes(config: QuantizationConfig, source: Path, tmp_path: Path) -> None:
    report = quantize_checkpoint(source, tmp_path / "out", config, _windows())
    model = prepare(AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32), config)
    with torch.no_grad():
        for batch in _windows().tokens_NT.split(TOKENS_PER_BATCH // 32):
            model(input_ids=batch)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    modules = [module for module in convert(model).modules() if isinstance(module, QuantizedLinear)]
    for module, row in zip(modules, report.linears, strict=True):
        weight = from_gptq_tensors(row.name, stored, bits=4, group_size=32, sym=True, version="gptq")
        assert torch.equal(weight.codes_OI, module.codes)
        assert torch.equal(weight.scales_OG, module.scales)
    assert QuantizationReport.read(tmp_path / "out" / "quantization_report.json") == report
    assert all(row.loss is not None and row.loss > 0 for row in report.linears)


@every_method
def test_a_resumed_run_writes_the_same_bytes_in_every_format(
    config: QuantizationConfig, source: Path, tmp_path: Path
) -> None:
    """Also where the saved activations are lost, so that finished blocks are run again from what was written."""
    formats, out = tuple(Format), tmp_path / "resumed"
    quantize_checkpoint(source, tmp_path / "straight", config, _windows(), formats=formats)
    listen, should_stop = stop_in(2)
    with pytest.raises(RunStoppedError):
        quantize_checkpoint(source, out, config, _windows(), on_event=listen, should_stop=should_stop)
    for path in (tmp_path / "resumed.work").glob("activations-*"):
        path.unlink()
    report = quantize_checkpoint(source, out, config, _windows(), formats=formats)
    assert report.blocks_resumed == 2
    assert _bytes(out) == _bytes(tmp_path / "straight")


@every_method
@pytest.mark.parametrize("sym", [True, False])
def test_the_artifact_is_near_the_float_model(
    sym: bool, config: QuantizationConfig, source: Path, tmp_path: Path
) -> None:
    """Loaded back at 8 bits, both kinds of grid compute what the source computes."""
    wide = replace(config, bits=8, group_size=16, sym=sym)
    quantize_checkpoint(source, tmp_path / "out", wide, _windows())
    tokens = random_tokens(4, 32, seed=5)
    with torch.no_grad():
        expected, found = (load_model(folder)(input_ids=tokens).logits for folder in (source, tmp_path / "out"))
    assert float((found - expected).square().mean() / expected.square().mean()) < 1e-2


def test_a_long_solve_can_be_stopped_between_its_steps(source: Path, tmp_path: Path) -> None:
    """A method that iterates asks before every step, so a stop does not wait for the linear to be done."""
    asked: list[None] = []

    def should_stop() -> bool:
        asked.append(None)
        return len(asked) > 500

    with pytest.raises(RunStoppedError):
        quantize_checkpoint(
            source,
            tmp_path / "out",
            AdaRoundConfig(group_size=32, iterations=100_000),
            _windows(),
            should_stop=should_stop,
        )


def test_channel_scales_are_taken_over_by_what_stands_in_front(source: Path, tmp_path: Path) -> None:
    """Every linear of a Llama has scaled channels; the artifact's norms carry them, in exact powers of two."""
    report = quantize_checkpoint(source, tmp_path / "out", AWQConfig(bits=3, group_size=32), _windows())
    assert all(row.channel_alpha is not None for row in report.linears)
    assert max(row.channel_alpha or 0.0 for row in report.linears) > 0
    before, after = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "out"))
    norms = [name for name in before if name.endswith("layernorm.weight")]
    exponents = torch.cat([torch.log2(before[name] / after[name]) for name in norms])
    assert exponents.any()
    assert torch.equal(exponents, exponents.round())


def test_without_channel_scales_no_other_tensor_changes(source: Path, tmp_path: Path) -> None:
    """Norms stay as they are, and the report says that nothing was scaled."""
    config = AWQConfig(bits=3, group_size=32, channel_steps=0)
    report = quantize_checkpoint(source, tmp_path / "out", config, _windows())
    assert {row.channel_alpha for row in report.linears} == {None}
    before, after = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "out"))
    kept = [name for name in before if name in after]
    assert all(torch.equal(before[name], after[name]) for name in kept)
