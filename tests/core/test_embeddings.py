"""The input embedding is packed on request: on scales that tokens weigh, in front of the blocks, and read back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.calibration.windows import CalibrationWindows
from core.checkpoint.reader import CheckpointReader
from core.configs import CalibrationConfig, Format, GPTQConfig, RTNConfig
from core.errors import InvalidConfigError, ModelRefusedError, RunStoppedError, TargetRefusedError
from core.evaluation.loading import load_model
from core.events import BlockQuantized, Event, LinearQuantized
from core.model.skeleton import Skeleton
from core.overrides import Overrides
from core.pipeline import quantize_checkpoint
from core.preflight.checks import check_config
from core.preflight.resources import estimate
from core.preflight.source import inspect_source
from core.quantization import convert
from core.quantizers.embedding import EmbeddingQuantizer, token_counts
from core.report import QuantizationReport
from tests.core.stops import stop_in
from tests.core.tiny import random_tokens, tiny_model, write_tiny_model
from tests.reference.unpacker import dequantized_weight

VOCABULARY = 288
NAMES = {"llama": "model.embed_tokens", "gpt2": "transformer.wte", "opt": "model.decoder.embed_tokens"}
"""One with a head of its own, and two whose head is tied to the embedding."""


def config_of(family: str, bits: int = 4, *, sym: bool = True) -> GPTQConfig:
    """Returns a config that packs the embedding, with the head where it is tied."""
    return GPTQConfig(bits=bits, group_size=32, sym=sym, embeddings=True, lm_head=family != "llama")


def windows(samples: int = 8, seq_len: int = 32) -> CalibrationWindows:
    """Returns windows of random tokens."""
    tokens = random_tokens(samples, seq_len)
    return CalibrationWindows(tokens_NT=tokens, sha256="0" * 64, tokens_available=tokens.numel())


def write_model(folder: Path, family: str = "llama") -> Path:
    """Writes a tiny model whose vocabulary fills groups and whole words of codes."""
    return write_tiny_model(folder, family, vocab_size=VOCABULARY)


@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("family", list(NAMES))
def test_an_independent_reader_finds_the_embedding(family: str, tmp_path: Path, *, sym: bool) -> None:
    """Packed along the vocabulary, near the source's at 8 bits, the same through our loader; logits stay near."""
    source, out, name = write_model(tmp_path / "model", family), tmp_path / "out", NAMES[family]
    report = quantize_checkpoint(source, out, config_of(family, 8, sym=sym), windows())
    stored = load_file(out / "model.safetensors")
    assert f"{name}.weight" not in stored
    assert stored[f"{name}.g_idx"].tolist() == [token // 32 for token in range(VOCABULARY)]
    unpacked_VO = dequantized_weight(name, stored, 8, "gptq" if sym else "gptq_v2").T.float()
    model = load_model(out)
    assert torch.equal(model.get_input_embeddings().weight, unpacked_VO)
    with CheckpointReader(source) as reader:
        float_VO = reader.tensor(f"{name}.weight").float()
    assert 0 < float((unpacked_VO - float_VO).norm() / float_VO.norm()) < 0.02
    tokens = random_tokens(4, 32, seed=5)
    with torch.no_grad():
        found, expected = (loaded(tokens).logits for loaded in (model, load_model(source)))
    assert float((found - expected).square().mean() / expected.square().mean()) < 2e-3
    row = report.linears[-1]
    assert (row.name, row.block, row.tokens, row.bits) == (name, 3 + (family != "llama"), 8 * 32, 8)
    assert row.relative_loss is not None
    assert row.relative_loss < 1e-3
    settings = json.loads((out / "config.json").read_text())
    assert settings["quantization_config"]["lm_head"] is (family != "llama")
    assert "Embeddings" not in (out / "README.md").read_text().split("Checkpoint format")[0]


def test_blocks_are_solved_for_the_packed_embedding(tmp_path: Path) -> None:
    """What enters the first block is what a loader looks up: its first linear gets other codes at 2 bits."""
    source = write_model(tmp_path / "model")
    coarse = Overrides({r"+:model\.embed_tokens": {"bits": 2}})
    codes = []
    for number, config in enumerate(
        (
            GPTQConfig(bits=4, group_size=32, mismatch_alpha=0.0),
            GPTQConfig(bits=4, group_size=32, mismatch_alpha=0.0, embeddings=True, dynamic=coarse),
        )
    ):
        quantize_checkpoint(source, tmp_path / str(number), config, windows())
        codes.append(load_file(tmp_path / str(number) / "model.safetensors")["model.layers.0.self_attn.q_proj.qweight"])
    assert not torch.equal(*codes)


def test_the_float_path_makes_up_for_the_packed_embedding(tmp_path: Path) -> None:
    """With the float model beside it the solve knows what the embedding lost: the logits come nearer at 2 bits."""
    source, coarse = write_model(tmp_path / "model"), Overrides({r"+:model\.embed_tokens": {"bits": 2}})
    tokens = windows().tokens_NT
    losses = []
    with torch.no_grad():
        expected = load_model(source)(tokens).logits
        for alpha in (0.0, 1.0):
            config = GPTQConfig(bits=8, group_size=32, mismatch_alpha=alpha, mismatch_every=1, embeddings=True)
            out = tmp_path / str(alpha)
            quantize_checkpoint(source, out, replace(config, dynamic=coarse), windows())
            losses.append(float((load_model(out)(tokens).logits - expected).square().mean()))
    assert losses[1] < 0.95 * losses[0]


def test_tokens_that_come_often_are_kept_best() -> None:
    """Scales that counts weigh lose less on those tokens than scales for which all tokens are alike."""
    generator = torch.Generator().manual_seed(0)
    W_OI = torch.randn(32, 64, generator=generator)
    counts_I = token_counts(torch.tensor([[3] * 90 + [40] * 60 + [7]]), 64)
    assert counts_I.tolist() == [90.0 if i == 3 else 60.0 if i == 40 else float(i == 7) for i in range(64)]
    losses = {}
    for name, counts in (("weighed", counts_I), ("alike", None)):
        weight = EmbeddingQuantizer(GPTQConfig(bits=3, group_size=32), counts).convert(W_OI, None).weight
        losses[name] = float(((weight.dequantize() - W_OI).square() @ counts_I).sum())
    assert losses["weighed"] < 0.7 * losses["alike"]


@pytest.mark.parametrize("stop_after", [2, 4])
def test_a_stopped_run_resumes_in_the_same_bytes(stop_after: int, tmp_path: Path) -> None:
    """Among the blocks, and before the embedding is written down; each step is told once."""
    source, config = write_model(tmp_path / "model", "opt"), config_of("opt")
    quantize_checkpoint(source, tmp_path / "straight", config, windows())
    events: list[Event] = []

    listen, in_next_block = stop_in(stop_after)

    def note(event: Event) -> None:
        events.append(event)
        listen(event)

    def stop() -> bool:
        # The embedding is recorded without a question in between, so that here the four blocks before it decide.
        return in_next_block() or sum(isinstance(event, BlockQuantized) for event in events) == 4

    out = tmp_path / "resumed"
    with pytest.raises(RunStoppedError):
        quantize_checkpoint(source, out, config, windows(), on_event=note, should_stop=stop)
    report = quantize_checkpoint(source, out, config, windows(), on_event=events.append)
    assert report.blocks_resumed == stop_after
    name = "model.safetensors"
    assert (out / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    finished = [event.block for event in events if isinstance(event, BlockQuantized)]
    assert finished == list(range(5))
    assert [event.linear for event in events if isinstance(event, LinearQuantized)][-1] == NAMES["opt"]


def test_rounding_packs_it_without_text(tmp_path: Path) -> None:
    """No count is known, so all tokens weigh alike and no loss is told."""
    report = quantize_checkpoint(
        write_model(tmp_path / "model"), tmp_path / "out", RTNConfig(group_size=32, embeddings=True), None
    )
    row = report.linears[-1]
    assert (row.name, row.tokens, row.loss) == (NAMES["llama"], 0, None)
    assert "model.embed_tokens.qweight" in load_file(tmp_path / "out" / "model.safetensors")


def test_a_pattern_may_leave_it_in_float(tmp_path: Path) -> None:
    """Then it is none of the linears, and the artifact keeps the source's tensor."""
    source = write_model(tmp_path / "model")
    config = RTNConfig(group_size=32, embeddings=True, dynamic=Overrides({r"-:model\.embed_tokens": {}}))
    report: QuantizationReport = quantize_checkpoint(source, tmp_path / "out", config, None)
    assert not any("embed" in row.name for row in report.linears)
    assert "model.embed_tokens.weight" in load_file(tmp_path / "out" / "model.safetensors")


def test_what_cannot_be_packed_is_refused_before_the_work(tmp_path: Path) -> None:
    """Each refusal names the field and what would do."""
    facts = inspect_source(write_model(tmp_path / "model"))
    config = config_of("llama")
    assert facts.embedding == ("model.embed_tokens", (64, VOCABULARY))
    assert check_config(config, facts, ["gptqmodel"]) == []
    for target in ("transformers", "vllm"):
        with pytest.raises(TargetRefusedError, match="embeddings") as caught:
            check_config(config, facts, [target])
        assert "embeddings=false" in str(caught.value)
    with pytest.raises(InvalidConfigError, match="groups an embedding along its width"):
        check_config(config, facts, formats=[Format.COMPRESSED_TENSORS])
    tied = inspect_source(write_model(tmp_path / "gpt2", "gpt2"))
    with pytest.raises(InvalidConfigError, match="the output head shares its tensor"):
        check_config(config, tied)
    scaled = inspect_source(write_model(tmp_path / "gemma", "gemma"))
    with pytest.raises(InvalidConfigError, match="gemma multiplies what it looks up"):
        check_config(config_of("gemma"), scaled)
    odd = inspect_source(write_tiny_model(tmp_path / "odd", vocab_size=272))
    with pytest.raises(InvalidConfigError, match="does not divide the 272 inputs of model"):
        check_config(config, odd)
    with pytest.raises(InvalidConfigError, match="in a folder only"):
        convert(tiny_model(vocab_size=VOCABULARY), RTNConfig(group_size=32, embeddings=True))


def test_an_embedding_that_does_more_than_look_up_is_refused(tmp_path: Path) -> None:
    """Whatever the table of families says, the model's own module decides."""
    source = write_model(tmp_path / "model", "gemma")
    with CheckpointReader(source) as reader, pytest.raises(ModelRefusedError, match="GemmaTextScaledWordEmbedding"):
        Skeleton.open(source, reader).embedding()


def test_sizes_and_calibration_know_it(tmp_path: Path) -> None:
    """The estimate counts its packed bytes and no Hessian over the vocabulary, and no text is too short for it."""
    facts = inspect_source(write_tiny_model(tmp_path / "model", vocab_size=2048))
    plain, packed = GPTQConfig(bits=4, group_size=32), config_of("llama")
    calibration = CalibrationConfig(samples=4, seq_len=64)
    assert estimate(facts, packed, calibration).artifact_bytes < estimate(facts, plain, calibration).artifact_bytes
    assert estimate(facts, packed, calibration).ram_bytes == estimate(facts, plain, calibration).ram_bytes
    assert check_config(packed, facts, calibration=calibration) == check_config(plain, facts, calibration=calibration)
