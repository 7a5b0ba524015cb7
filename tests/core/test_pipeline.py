from __future__ import annotations

import gc
import json
import time
from functools import reduce
from pathlib import Path

import numba
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from core.calibration.windows import CalibrationWindows
from core.checkpoint.checksums import verify_sha256sums
from core.configs import GPTQConfig, Order, QuantizationConfig, RTNConfig
from core.environment import forward_dtype
from core.errors import (
    CalibrationRefusedError,
    InvalidConfigError,
    ModelProblem,
    ModelRefusedError,
    ResumeRefusedError,
    RunStoppedError,
)
from core.evaluation.loading import load_model
from core.events import BlockQuantized, Event, LinearQuantized, RunStarted, Stage, StageStarted
from core.formats.gptq import from_gptq_tensors
from core.model.modules import QuantizedLinear
from core.pipeline import Resources, quantize_checkpoint
from core.preflight.memory import TOKENS_PER_BATCH
from core.profile import Work
from core.progress import ProgressEstimator
from core.quantization import convert, prepare
from core.report import QuantizationReport
from tests.core.stops import stop_in
from tests.core.tiny import FAMILIES, byte_tokenizer, random_tokens, tiny_model, write_tiny_model

GPTQ = GPTQConfig(bits=4, group_size=32)
MIXTRAL_NAMES = {".block_sparse_moe.": ".mlp.", ".w1": ".gate_proj", ".w2": ".down_proj", ".w3": ".up_proj"}
"""What Mixtral's checkpoints call otherwise than its modules, once its experts are split."""
# These two carry measured seconds and memory, which no two runs share.
MEASURED = {"quantization_report.json", "SHA256SUMS"}


def _windows(samples: int = 8, seq_len: int = 32) -> CalibrationWindows:
    tokens = random_tokens(samples, seq_len)
    return CalibrationWindows(tokens_NT=tokens, sha256="0" * 64, tokens_available=tokens.numel())


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in MEASURED}


def _matrix_floats_alive() -> int:
    alive = [item for item in gc.get_objects() if type(item) is torch.nn.Parameter and not item.is_meta]
    return sum(item.numel() for item in alive if item.dim() == 2)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "model")


@pytest.mark.parametrize("family", FAMILIES)
def test_disk_and_memory_give_the_same_codes(family: str, tmp_path: Path) -> None:
    """On every family the pipeline writes exactly the codes, scales and zeros that prepare and convert compute."""
    source, out = write_tiny_model(tmp_path / "model", family), tmp_path / "out"
    windows = _windows()
    report = quantize_checkpoint(source, out, GPTQ, windows)
    verify_sha256sums(out)
    model = prepare(tiny_model(family), GPTQ)
    with torch.no_grad():
        for batch in windows.tokens_NT.split(TOKENS_PER_BATCH // windows.seq_len):
            model(input_ids=batch)
    stored = load_file(out / "model.safetensors")
    modules = [(path, module) for path, module in convert(model).named_modules() if isinstance(module, QuantizedLinear)]
    assert len(modules) == len(report.linears)
    for (path, module), row in zip(modules, report.linears, strict=True):
        weight = from_gptq_tensors(row.name, stored, bits=4, group_size=32, sym=True, version="gptq")
        stored_name = reduce(lambda name, pair: name.replace(*pair), MIXTRAL_NAMES.items(), row.name)
        assert path.endswith(stored_name) or stored_name.endswith(path)
        assert torch.equal(weight.codes_OI, module.codes)
        assert torch.equal(weight.scales_OG, module.scales)


def test_bfloat16_models_run_in_their_own_dtype(tmp_path: Path) -> None:
    """A bfloat16 source gives the codes of the bfloat16 model in memory if the CPU has that dtype, else float32's."""
    dtype = forward_dtype("bfloat16")
    tiny_model().to(torch.bfloat16).save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    windows = _windows()
    quantize_checkpoint(tmp_path / "model", tmp_path / "out", GPTQ, windows)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=dtype)
    prepare(model, GPTQ, kwargs={"input_ids": windows.tokens_NT})
    stored = load_file(tmp_path / "out" / "model.safetensors")
    for path, module in convert(model).named_modules():
        if isinstance(module, QuantizedLinear):
            weight = from_gptq_tensors(path, stored, bits=4, group_size=32, sym=True, version="gptq")
            assert torch.equal(weight.codes_OI, module.codes)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma", "bloom"])
def test_the_artifact_is_near_the_float_model(family: str, tmp_path: Path) -> None:
    """Loaded back, an 8-bit artifact computes what the source computes, tied heads and biases included."""
    source, out = write_tiny_model(tmp_path / "model", family), tmp_path / "out"
    quantize_checkpoint(source, out, GPTQConfig(bits=8, group_size=16), _windows())
    tokens = random_tokens(4, 32, seed=5)
    with torch.no_grad():
        expected, found = (load_model(folder)(input_ids=tokens).logits for folder in (source, out))
    assert float((found - expected).square().mean() / expected.square().mean()) < 2e-3


@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_every_grid_and_order_passes_its_own_check(
    bits: int, order: Order, sym: bool, source: Path, tmp_path: Path
) -> None:
    """All widths, orders and grids write complete artifacts whose report covers every linear."""
    config = GPTQConfig(bits=bits, group_size=32, order=order, sym=sym)
    report = quantize_checkpoint(source, tmp_path / "out", config, _windows())
    assert len(report.linears) == 21
    assert all(linear.loss is not None and linear.loss >= 0 for linear in report.linears)
    assert QuantizationReport.read(tmp_path / "out" / "quantization_report.json") == report
    assert bits < report.bits_per_weight < bits + 2


@pytest.mark.parametrize("stop_after", [1, 2])
@pytest.mark.parametrize("lose_activations", [False, True])
def test_a_resumed_run_writes_the_same_bytes(
    stop_after: int, lose_activations: bool, source: Path, tmp_path: Path
) -> None:
    """Stopped after any block, with or without its saved activations, a run ends in the bytes of an undisturbed one."""
    quantize_checkpoint(source, tmp_path / "straight", GPTQ, _windows(samples=80))
    out, work = tmp_path / "resumed", tmp_path / "resumed.work"
    listen, should_stop = stop_in(stop_after)
    with pytest.raises(RunStoppedError) as stopped:
        quantize_checkpoint(source, out, GPTQ, _windows(samples=80), on_event=listen, should_stop=should_stop)
    assert stopped.value.blocks_done == stop_after
    assert not out.exists()
    if lose_activations:
        for path in work.glob("activations-*"):
            path.unlink()
    events: list[Event] = []
    report = quantize_checkpoint(source, out, GPTQ, _windows(samples=80), on_event=events.append)
    assert [event.block for event in events if isinstance(event, BlockQuantized)] == list(range(stop_after, 3))
    assert next(event for event in events if isinstance(event, RunStarted)).blocks_resumed == stop_after
    assert report.blocks_resumed == stop_after
    assert _bytes(out) == _bytes(tmp_path / "straight")
    assert not work.exists()


def test_another_run_does_not_resume_from_it(source: Path, tmp_path: Path) -> None:
    """A work folder of other settings, another model or other calibration is refused, and the field is named."""
    out = tmp_path / "out"
    listen, should_stop = stop_in(1)
    with pytest.raises(RunStoppedError):
        quantize_checkpoint(source, out, GPTQ, _windows(), on_event=listen, should_stop=should_stop)
    with pytest.raises(ResumeRefusedError, match="config"):
        quantize_checkpoint(source, out, GPTQConfig(bits=4, group_size=16), _windows())
    other = CalibrationWindows(tokens_NT=random_tokens(8, 32), sha256="1" * 64, tokens_available=256)
    with pytest.raises(ResumeRefusedError, match="calibration_sha256"):
        quantize_checkpoint(source, out, GPTQ, other)
    changed = write_tiny_model(tmp_path / "changed", seed=3)
    with pytest.raises(ResumeRefusedError, match="model_sha256"):
        quantize_checkpoint(changed, out, GPTQ, _windows())


def test_rtn_needs_no_calibration_and_gptq_beats_it(source: Path, tmp_path: Path) -> None:
    """RTN runs without text; with it, GPTQ's model is nearer to the float one."""
    tokens = random_tokens(6, 32, seed=8)
    configs: dict[str, QuantizationConfig] = {
        "rtn": RTNConfig(bits=3, group_size=32),
        "gptq": GPTQConfig(bits=3, group_size=32),
    }
    report = quantize_checkpoint(source, tmp_path / "rtn", configs["rtn"], None)
    quantize_checkpoint(source, tmp_path / "gptq", configs["gptq"], _windows(samples=32))
    assert report.mean_relative_loss is None
    assert report.calibration_sha256 is None
    distances = {}
    with torch.no_grad():
        expected = load_model(source)(input_ids=tokens).logits
        for name in configs:
            distances[name] = float((load_model(tmp_path / name)(input_ids=tokens).logits - expected).square().mean())
    assert distances["gptq"] < distances["rtn"]


def test_bad_input_is_refused_before_work_starts(source: Path, tmp_path: Path) -> None:
    """Neither output nor work folder is left behind by a refusal."""
    out = tmp_path / "out"
    with pytest.raises(InvalidConfigError, match="group_size"):
        quantize_checkpoint(source, out, GPTQConfig(group_size=48), _windows())
    with pytest.raises(CalibrationRefusedError, match="needs calibration"):
        quantize_checkpoint(source, out, GPTQ, None)
    (source / "tokenizer.json").unlink()
    (source / "tokenizer_config.json").unlink()
    with pytest.raises(ModelRefusedError) as refused:
        quantize_checkpoint(source, out, GPTQ, _windows())
    assert refused.value.problem is ModelProblem.TOKENIZER_MISSING
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_weights_that_are_not_finite_are_named(source: Path, tmp_path: Path) -> None:
    """A NaN in one tensor refuses the model by that tensor's name before any block is solved."""
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelRefusedError, match=r"layers\.1\.mlp\.up_proj") as refused:
        quantize_checkpoint(source, tmp_path / "out", GPTQ, _windows())
    assert refused.value.problem is ModelProblem.NON_FINITE_WEIGHTS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_no_more_than_one_block_is_in_memory(tmp_path: Path) -> None:
    """While a block is solved, the float weights alive are those of one block, not of the model."""
    source = write_tiny_model(tmp_path / "model", num_hidden_layers=8)
    block_floats = 64 * 64 * 2 + 64 * 32 * 2 + 64 * 128 * 3
    gc.collect()
    before, largest = _matrix_floats_alive(), 0

    def measure(event: Event) -> None:
        nonlocal largest
        if isinstance(event, LinearQuantized):
            largest = max(largest, _matrix_floats_alive() - before)

    quantize_checkpoint(source, tmp_path / "out", GPTQ, _windows(), on_event=measure)
    assert block_floats <= largest < 2 * block_floats


def test_shards_and_provenance(source: Path, tmp_path: Path) -> None:
    """Small shards give an indexed artifact that loads; provenance reaches card and config, and no path does."""
    out = tmp_path / "out"
    quantize_checkpoint(
        source,
        out,
        GPTQ,
        _windows(),
        resources=Resources(max_shard_bytes=60_000),
        provenance={"model": "acme/tiny-llama", "dataset": "built-in"},
    )
    assert (out / "model.safetensors.index.json").exists()
    assert len(list(out.glob("model-*-of-*.safetensors"))) > 1
    load_model(out)
    card = (out / "README.md").read_text()
    assert "tiny-llama-built-in_GPTQ_w4_g32_headfp32" in card
    texts = "".join(path.read_text() for path in out.iterdir() if path.suffix in {".json", ".md"})
    assert str(tmp_path) not in texts


def test_progress_rises_to_the_end(source: Path, tmp_path: Path) -> None:
    """Fed with the run's events, progress never falls, and stages come in their order."""
    estimator, fractions, stages = ProgressEstimator(), [], []

    def listen(event: Event) -> None:
        fractions.append(estimator.update(event).fraction)
        if isinstance(event, StageStarted):
            stages.append(event.stage)

    quantize_checkpoint(source, tmp_path / "out", GPTQ, _windows(), on_event=listen)
    assert stages == [Stage.PREFLIGHT, Stage.CALIBRATING, Stage.QUANTIZING, Stage.PACKING]
    assert fractions == sorted(fractions)
    assert 0.8 < fractions[-1] <= 1.0
    assert estimator.current().blocks_done == 3


def test_a_profile_says_where_the_time_went(source: Path, tmp_path: Path) -> None:
    """With it the artifact holds profile.json, listed and summing up to the run; the report has the seconds always."""
    out = tmp_path / "out"
    started = time.perf_counter()
    report = quantize_checkpoint(source, out, GPTQ, _windows(), resources=Resources(profile=True))
    wall = time.perf_counter() - started
    verify_sha256sums(out)
    profile = json.loads((out / "profile.json").read_text("utf-8"))
    work = profile["work"]
    assert {name for name, amount in work.items() if amount["seconds"] > 0} == set(report.seconds_by_work)
    beside = {name for name, amount in work.items() if amount["seconds_beside"] > 0}
    assert beside == {Work.LOAD, Work.PACK, Work.WRITE}
    assert beside | set(report.seconds_by_work) == {str(kind) for kind in Work}
    assert 0.5 * sum(report.seconds_by_stage.values()) < profile["seconds"] < wall
    # Three blocks of the tiny model, 8 x 32 tokens on the quantized path; the float path runs beside half the batches.
    weights = 3 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128)
    assert profile["work"]["forward"]["operations"]["float32"] >= 2 * weights * 8 * 32
    assert profile["work"]["load"]["bytes"] > 0
    assert profile["work"]["write"]["bytes"] > 0
    assert 0 < profile["product_share"] < 1
    quantize_checkpoint(source, tmp_path / "plain", GPTQ, _windows())
    assert not (tmp_path / "plain" / "profile.json").exists()


def test_the_bytes_do_not_depend_on_the_number_of_threads(source: Path, tmp_path: Path) -> None:
    """One thread and two write the same artifact, and the compiled kernels get as many as torch."""
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            resources = Resources(threads=count)
            quantize_checkpoint(source, tmp_path / f"out{count}", GPTQ, _windows(), resources=resources)
            assert numba.get_num_threads() == min(count, numba.config.NUMBA_NUM_THREADS)
    finally:
        torch.set_num_threads(threads)
        numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    assert _bytes(tmp_path / "out1") == _bytes(tmp_path / "out2")
