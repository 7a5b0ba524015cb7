"""The output head is quantized on request: untied, on the last norm's outputs, in tiles, and read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.calibration.windows import CalibrationWindows
from core.checkpoint.reader import CheckpointReader
from core.configs import Format, GPTQConfig, RTNConfig
from core.errors import InvalidConfigError, RunStoppedError, TargetRefusedError
from core.evaluation.loading import load_model
from core.events import Event, LinearQuantized
from core.formats.gptq import from_gptq_tensors
from core.model.modules import QuantizedLinear
from core.overrides import Overrides
from core.pipeline import quantize_checkpoint
from core.preflight.checks import check_config
from core.preflight.memory import TOKENS_PER_BATCH
from core.preflight.resources import estimate
from core.preflight.source import inspect_source
from core.quantization import convert, prepare
from core.quantizers.gptq import GPTQQuantizer
from core.quantizers.outer import HeadBatch, OuterTask, head_statistics, quantize_outer
from tests.core.tiny import random_tokens, tiny_model, write_tiny_model

VOCABULARY = 288
GPTQ = GPTQConfig(bits=4, group_size=32, lm_head=True)
FAMILIES = ("llama", "gemma", "gpt2", "opt", "mixtral")
"""Untied with names of its own, tied with a scaled embedding, Conv1D blocks, an odd last norm, experts."""


def windows(samples: int = 8, seq_len: int = 32) -> CalibrationWindows:
    """Returns windows of random tokens."""
    tokens = random_tokens(samples, seq_len)
    return CalibrationWindows(tokens_NT=tokens, sha256="0" * 64, tokens_available=tokens.numel())


def write_model(folder: Path, family: str = "llama") -> Path:
    """Writes a tiny model whose vocabulary fills whole words of codes."""
    return write_tiny_model(folder, family, vocab_size=VOCABULARY)


@pytest.mark.parametrize("family", FAMILIES)
def test_disk_and_memory_give_the_same_head(family: str, tmp_path: Path) -> None:
    """Both give the same codes for the head; the embedding stays as the source has it, and the two are untied."""
    source, out, calibration = write_model(tmp_path / "model", family), tmp_path / "out", windows()
    report = quantize_checkpoint(source, out, GPTQ, calibration)
    model = prepare(tiny_model(family, vocab_size=VOCABULARY), GPTQ)
    with torch.no_grad():
        for batch in calibration.tokens_NT.split(TOKENS_PER_BATCH // calibration.seq_len):
            model(input_ids=batch)
    head = convert(model).get_submodule("lm_head")
    assert isinstance(head, QuantizedLinear)
    stored = load_file(out / "model.safetensors")
    weight = from_gptq_tensors("lm_head", stored, bits=4, group_size=32, sym=True, version="gptq")
    assert torch.equal(weight.codes_OI, head.codes)
    assert torch.equal(weight.scales_OG, head.scales)
    row = report.linears[-1]
    assert (row.name, row.block, row.tokens, row.bits) == ("lm_head", 3, 8 * 32, 4)
    assert report.blocks == 3
    config = json.loads((out / "config.json").read_text())
    assert config["tie_word_embeddings"] is False
    assert config["quantization_config"]["lm_head"] is True
    with CheckpointReader(source) as reader:
        kept = {name: reader.tensor(name) for name in reader.names() if "embed_tokens" in name or "wte" in name}
    assert kept
    assert all(torch.equal(stored[name], tensor) for name, tensor in kept.items())


@pytest.mark.parametrize("family", ["llama", "gemma"])
def test_both_layouts_are_read_back_near_the_float_model(family: str, tmp_path: Path) -> None:
    """At 8 bits the logits of both layouts are the same and near the source's; the head really is another one."""
    source, out = write_model(tmp_path / "model", family), tmp_path / "out"
    config = GPTQConfig(bits=8, group_size=32, lm_head=True)
    quantize_checkpoint(source, out, config, windows(), formats=tuple(Format))
    tokens = random_tokens(4, 32, seed=5)
    with torch.no_grad():
        expected, *found = (load_model(folder)(tokens).logits for folder in (source, out, out / "compressed-tensors"))
    assert torch.equal(*found)
    assert 0 < float((found[0] - expected).square().mean() / expected.square().mean()) < 2e-3
    settings = json.loads((out / "compressed-tensors" / "config.json").read_text())["quantization_config"]
    assert settings["config_groups"]["group_0"]["targets"] == ["Linear", "lm_head"]
    assert "lm_head" not in settings["ignore"]


def test_patterns_decide_about_the_head_too(tmp_path: Path) -> None:
    """Its own width where a pattern says so, and float where it is skipped: tied as before, and said so."""
    source = write_model(tmp_path / "model", "gemma")
    wide = GPTQConfig(bits=4, group_size=32, lm_head=True, dynamic=Overrides({"+:lm_head": {"bits": 8}}))
    report = quantize_checkpoint(source, tmp_path / "wide", wide, windows())
    assert [row.bits for row in report.linears if row.name == "lm_head"] == [8]
    assert "_headw8" in (tmp_path / "wide" / "README.md").read_text()
    skipped = GPTQConfig(bits=4, group_size=32, lm_head=True, dynamic=Overrides({"-:lm_head": {}}))
    report = quantize_checkpoint(source, tmp_path / "skipped", skipped, windows())
    assert not any(row.name == "lm_head" for row in report.linears)
    config = json.loads((tmp_path / "skipped" / "config.json").read_text())
    assert config["quantization_config"]["lm_head"] is False
    assert config["tie_word_embeddings"] is True


def test_tiles_of_rows_give_the_codes_of_the_whole() -> None:
    """A head that is solved in small tiles has the same codes, scales and loss as one that is solved at once."""
    torch.manual_seed(0)
    W_OI = torch.randn(96, 64)
    quantizer = GPTQQuantizer(GPTQConfig(bits=4, group_size=32))
    events: list[Event] = []
    found = []
    inputs = torch.randn(2, 40, 64)
    for tile in (2**20, 10 * 64):
        statistics = head_statistics(quantizer, [HeadBatch(inputs=inputs)])
        task = OuterTask(index=7, name="lm_head", quantizer=quantizer, on_event=events.append, tile_elements=tile)
        found.append(quantize_outer(task, W_OI, statistics).linears["lm_head"])
    whole, tiled = found
    assert torch.equal(whole.weight.codes_OI, tiled.weight.codes_OI)
    assert torch.equal(whole.weight.scales_OG, tiled.weight.scales_OG)
    assert whole.loss is not None
    assert tiled.loss == pytest.approx(whole.loss, rel=1e-4)
    assert tiled.relative_loss == pytest.approx(whole.relative_loss, rel=1e-4)
    assert (tiled.tokens, tiled.order) == (80, whole.order)
    assert [event.linear for event in events if isinstance(event, LinearQuantized)] == ["lm_head"] * 2


@pytest.mark.parametrize("lose_activations", [False, True])
def test_a_run_that_stops_before_the_head_resumes_in_the_same_bytes(lose_activations: bool, tmp_path: Path) -> None:
    """The head is a step of its own: with or without saved activations the artifact is that of an undisturbed run."""
    source, out = write_model(tmp_path / "model", "gemma"), tmp_path / "resumed"
    quantize_checkpoint(source, tmp_path / "straight", GPTQ, windows())
    done: list[Event] = []

    def listen(event: Event) -> None:
        if isinstance(event, LinearQuantized):
            done.append(event)

    with pytest.raises(RunStoppedError):
        quantize_checkpoint(source, out, GPTQ, windows(), on_event=listen, should_stop=lambda: len(done) == 3 * 7)
    if lose_activations:
        for path in (tmp_path / "resumed.work").glob("activations-*"):
            path.unlink()
    report = quantize_checkpoint(source, out, GPTQ, windows())
    assert report.blocks_resumed == 3
    name = "model.safetensors"
    assert (out / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_rounding_needs_no_text_for_the_head_either(tmp_path: Path) -> None:
    """Without calibration the head is rounded like every linear."""
    source = write_model(tmp_path / "model")
    report = quantize_checkpoint(source, tmp_path / "out", RTNConfig(group_size=32, lm_head=True), None)
    assert report.linears[-1].name == "lm_head"
    assert "lm_head.weight" not in load_file(tmp_path / "out" / "model.safetensors")


def test_loaders_are_asked_about_the_head(tmp_path: Path) -> None:
    """Transformers' GPTQ loader takes no packed head; vocabularies that fill no words are refused; sizes count it."""
    facts = inspect_source(write_model(tmp_path / "model"))
    assert facts.head == ("lm_head", (VOCABULARY, 64))
    assert check_config(GPTQ, facts, ["gptqmodel"]) == []
    with pytest.raises(TargetRefusedError, match="lm_head"):
        check_config(GPTQ, facts, ["transformers"])
    assert check_config(GPTQ, facts, ["transformers"], formats=["compressed-tensors"]) == []
    odd = inspect_source(write_tiny_model(tmp_path / "odd"))
    with pytest.raises(InvalidConfigError, match="lm_head is 260 x 64"):
        check_config(GPTQ, odd)
    float_head = GPTQConfig(bits=4, group_size=32)
    assert estimate(facts, GPTQ, None).artifact_bytes < estimate(facts, float_head, None).artifact_bytes
