"""A mixture of experts from folder to artifact: names, routes, statistics, warnings, resume, loading."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.calibration.windows import CalibrationWindows
from core.checkpoint.reader import CheckpointReader
from core.configs import Format, GPTQConfig, RTNConfig
from core.errors import InvalidConfigError, RunStoppedError
from core.evaluation.loading import load_model
from core.evaluation.perplexity import perplexity
from core.events import Event, LinearQuantized, WarningRaised
from core.model.modules import QuantizedLinear
from core.pipeline import Resources, quantize_checkpoint
from core.quantization import convert, prepare
from tests.core.stops import stop_in
from tests.core.tiny import random_tokens, tiny_model, write_tiny_model

GPTQ = GPTQConfig(bits=4, group_size=32)
MEASURED = {"quantization_report.json", "SHA256SUMS"}
EXPERTS = {
    "mixtral": ("model.layers.{}.block_sparse_moe.experts.{}", ("w1", "w3", "w2")),
    "qwen3_moe": ("model.layers.{}.mlp.experts.{}", ("gate_proj", "up_proj", "down_proj")),
}


def windows(samples: int, seq_len: int = 32) -> CalibrationWindows:
    """Returns windows of random tokens."""
    tokens = random_tokens(samples, seq_len)
    return CalibrationWindows(tokens_NT=tokens, sha256="0" * 64, tokens_available=tokens.numel())


def artifact_bytes(folder: Path) -> dict[str, bytes]:
    """Returns what an undisturbed and a resumed run share, by file."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in MEASURED}


@pytest.mark.parametrize("family", EXPERTS)
def test_every_source_tensor_stays_or_is_packed_under_its_own_name(family: str, tmp_path: Path) -> None:
    """Routers and norms are the source's bytes; each expert's linears stand under the checkpoint's names, in order."""
    source, out = write_tiny_model(tmp_path / "model", family), tmp_path / "out"
    report = quantize_checkpoint(source, out, RTNConfig(group_size=32), None)
    stored, rows = load_file(out / "model.safetensors"), {row.name: row for row in report.linears}
    with CheckpointReader(source) as reader:
        for name in reader.names():
            stem = name.removesuffix(".weight")
            assert (stem in rows) == (f"{stem}.qweight" in stored)
            assert (stem in rows) != (name in stored)
            assert stem in rows or torch.equal(stored[name], reader.tensor(name))
    path, linears = EXPERTS[family]
    names = [f"{path.format(0, expert)}.{linear}" for expert in range(4) for linear in linears]
    assert [name for name in rows if ".layers.0." in name and ".experts." in name] == names
    assert any(name.endswith("gate.weight") for name in stored)


def test_starved_experts_are_counted_said_and_written_down(tmp_path: Path) -> None:
    """Each linear's row has its tokens; each block's shortage is one event, one line of the report and of the card."""
    source, out = write_tiny_model(tmp_path / "model", "mixtral"), tmp_path / "out"
    events: list[Event] = []
    report = quantize_checkpoint(source, out, GPTQ, windows(2, 16), on_event=events.append)
    raised = [event for event in events if isinstance(event, WarningRaised)]
    assert {(event.code, event.block) for event in raised if event.linear is None} == {
        ("starved_experts", block) for block in range(3)
    }
    assert not any(".experts." in str(event.linear) for event in raised)
    first = report.warnings[0]
    assert "4 of 4 experts got fewer calibration tokens than they have inputs" in first
    assert "feed_all_experts" in (out / "README.md").read_text()
    experts = [row for row in report.linears if row.block == 0 and row.name.endswith(".w1")]
    assert sum(row.tokens for row in experts) == 2 * 32
    assert f"fewest {min(row.tokens for row in experts)}, median" in first
    assert all(row.warnings for row in experts)


def test_feeding_all_experts_ends_the_shortage(tmp_path: Path) -> None:
    """With the option every expert's statistics have every token, and no warning is left; it is in the artifact."""
    source, out = write_tiny_model(tmp_path / "model", "mixtral"), tmp_path / "out"
    config = GPTQConfig(bits=4, group_size=32, feed_all_experts=True)
    report = quantize_checkpoint(source, out, config, windows(8))
    assert {row.tokens for row in report.linears} == {8 * 32}
    assert report.warnings == ()
    assert all(row.relative_loss is not None for row in report.linears)


def test_feeding_experts_that_are_not_there_is_refused(tmp_path: Path) -> None:
    """The option means nothing for a dense model."""
    source = write_tiny_model(tmp_path / "model")
    with pytest.raises(InvalidConfigError, match="feed_all_experts"):
        quantize_checkpoint(source, tmp_path / "out", GPTQConfig(group_size=32, feed_all_experts=True), windows(2))


@pytest.mark.parametrize("config", [GPTQ, GPTQConfig(group_size=32, feed_all_experts=True, true_sequential=False)])
def test_a_resumed_run_writes_the_same_bytes(config: GPTQConfig, tmp_path: Path) -> None:
    """Stopped after a block and without its saved activations, the run ends in the bytes of an undisturbed one."""
    source, out = write_tiny_model(tmp_path / "model", "qwen3_moe"), tmp_path / "resumed"
    quantize_checkpoint(source, tmp_path / "straight", config, windows(80))
    listen, should_stop = stop_in(1)
    with pytest.raises(RunStoppedError):
        quantize_checkpoint(source, out, config, windows(80), on_event=listen, should_stop=should_stop)
    for path in (tmp_path / "resumed.work").glob("activations-*"):
        path.unlink()
    report = quantize_checkpoint(source, out, config, windows(80))
    assert report.blocks_resumed == 1
    assert artifact_bytes(out) == artifact_bytes(tmp_path / "straight")


@pytest.mark.parametrize("family", EXPERTS)
def test_the_artifact_is_loaded_and_near_the_float_model(family: str, tmp_path: Path) -> None:
    """Both layouts give the same logits, and a perplexity near that of the source."""
    source, out = write_tiny_model(tmp_path / "model", family), tmp_path / "out"
    quantize_checkpoint(
        source, out, GPTQConfig(bits=8, group_size=32), windows(16), formats=(Format.GPTQ, Format.COMPRESSED_TENSORS)
    )
    tokens = random_tokens(4, 32, seed=5)
    expected = perplexity(load_model(source), tokens)
    assert perplexity(load_model(out), tokens) == pytest.approx(expected, rel=0.02)
    with torch.no_grad():
        logits = [load_model(folder)(tokens).logits for folder in (out, out / "compressed-tensors")]
    assert torch.equal(*logits)


def test_a_model_in_memory_feeds_its_experts_for_statistics_only() -> None:
    """Convert feeds every expert if asked to, and leaves a model that routes as before."""
    tokens = random_tokens(8, 32)
    model = prepare(tiny_model("mixtral"), GPTQConfig(group_size=32, feed_all_experts=True), args=(tokens,))
    experts = convert(model).get_submodule("model.layers.0.mlp.experts")
    assert isinstance(experts.get_submodule("2.down_proj"), QuantizedLinear)
    reached: list[int] = []
    experts.get_submodule("2").register_forward_pre_hook(lambda _module, args: reached.append(len(args[0])))
    with torch.no_grad():
        model(tokens)
    assert 0 < reached[0] < tokens.numel()


def test_the_events_name_every_expert(tmp_path: Path) -> None:
    """What a job shows while it runs has a row for each linear of each expert."""
    source = write_tiny_model(tmp_path / "model", "qwen3_moe")
    events: list[Event] = []
    resources = Resources(keep_work=False)
    quantize_checkpoint(
        source, tmp_path / "out", RTNConfig(group_size=32), None, on_event=events.append, resources=resources
    )
    names = {event.linear for event in events if isinstance(event, LinearQuantized) and event.block == 2}
    assert {f"mlp.experts.{number}.{name}" for number in range(4) for name in EXPERTS["qwen3_moe"][1]} <= names
