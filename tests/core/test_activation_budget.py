"""What activations may take changes where they lie and how often a block runs, never a byte of the result."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import torch

from core.calibration.windows import CalibrationWindows
from core.configs import AWQConfig, GPTQConfig, Order, QuantizationConfig
from core.model import passes
from core.model.activations import Activations, HiddenStates
from core.pipeline import Resources, quantize_checkpoint
from core.steps import run as steps_run
from tests.core.tiny import random_tokens, write_tiny_model

GPTQ = GPTQConfig(bits=4, group_size=32)
CASES: dict[str, tuple[str, QuantizationConfig]] = {
    "float path": ("llama", GPTQ),
    "without it": ("llama", GPTQConfig(bits=4, group_size=32, mismatch_alpha=0.0)),
    "experts": ("mixtral", GPTQ),
    "all experts fed": ("qwen3_moe", GPTQConfig(bits=4, group_size=32, feed_all_experts=True)),
    "parallel attention": ("gpt_neox", GPTQ),
    "held out": ("llama", GPTQConfig(bits=4, group_size=32, order=Order.AUTO)),
    "channel scales": ("llama", AWQConfig(bits=4, group_size=32)),
}
SEQ_LEN = 64
TOKENS_PER_BATCH = 256
"""Fewer than a run's own, for the time that this takes; as many batches."""
BATCHES = 8
MEASURED = {"quantization_report.json", "SHA256SUMS"}


def _windows() -> CalibrationWindows:
    tokens = random_tokens(BATCHES * TOKENS_PER_BATCH // SEQ_LEN, SEQ_LEN)
    return CalibrationWindows(tokens_NT=tokens, sha256="0" * 64, tokens_available=tokens.numel())


def _hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.iterdir() if path.name not in MEASURED)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("case", CASES)
def test_the_bytes_do_not_depend_on_the_budget(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a limit, with hidden states on disk, with some and with all batches replayed: the same artifact."""
    family, config = CASES[case]
    source = write_tiny_model(tmp_path / "model", family, num_hidden_layers=2, max_position_embeddings=SEQ_LEN)
    monkeypatch.setattr(steps_run, "TOKENS_PER_BATCH", TOKENS_PER_BATCH)
    replays, admitted = _noted(monkeypatch)

    def run(name: str, budget: int) -> int:
        replays.clear()
        quantize_checkpoint(source, tmp_path / name, config, _windows(), resources=Resources(activation_memory=budget))
        assert not (tmp_path / f"{name}.work").exists()
        return len(replays)

    assert run("unlimited", 1 << 40) == 0
    assert admitted[-1][0].spilled_bytes == 0
    needed = max(nbytes for _, nbytes in admitted)
    assert run("spilled", needed + 400) == 0
    assert admitted[-1][0].spilled_bytes > 0
    assert 0 < run("some", needed // 2) < run("none", 0)
    for name in ("spilled", "some", "none"):
        assert _hashes(tmp_path / name) == _hashes(tmp_path / "unlimited"), name


def _noted(monkeypatch: pytest.MonkeyPatch) -> tuple[list[passes.ReplayedPass], list[tuple[Activations, int]]]:
    """Returns, filled as runs go on: replays, and the bytes that all batches of a block would hold."""
    replays: list[passes.ReplayedPass] = []
    admitted: list[tuple[Activations, int]] = []
    advance, admit = passes.ReplayedPass.advance, Activations.admit

    def noting_advance(self: passes.ReplayedPass) -> None:
        replays.append(self)
        advance(self)

    def noting_admit(self: Activations, held_bytes: Sequence[int]) -> int:
        admitted.append((self, sum(held_bytes)))
        return admit(self, held_bytes)

    monkeypatch.setattr(passes.ReplayedPass, "advance", noting_advance)
    monkeypatch.setattr(Activations, "admit", noting_admit)
    return replays, admitted


def test_what_is_kept_comes_back_bit_by_bit(tmp_path: Path) -> None:
    """In memory and from the file, in any dtype and shape; parts that nobody refers to any more are used again."""
    activations = Activations(8 * 4096, tmp_path)
    tensors = [torch.randn(4, 256), torch.randn(3, 5).bfloat16(), torch.randn(8, 1024), torch.empty(0, 7)]
    kept = [activations.keep(tensor) for tensor in tensors]
    assert all(torch.equal(one.tensor(), tensor) for one, tensor in zip(kept, tensors, strict=True))
    assert activations.spilled_bytes > 0
    assert list(tmp_path.iterdir()) == []  # the file has no name: nothing can be left behind
    mapped = kept[2].tensor()[1:]
    kept.clear()
    for _ in range(3):
        activations.keep(torch.zeros(8, 1024))
    assert torch.equal(mapped, tensors[2][1:])  # a part in use is not given away


def test_a_budget_admits_the_first_batches(tmp_path: Path) -> None:
    """As many as fit, in order; hidden states stay in memory only in the room that all of them leave."""
    activations = Activations(100, tmp_path)
    assert activations.admit([40, 40, 40]) == 2
    states = torch.zeros(2)
    activations.keep(states)
    assert activations.spilled_bytes == states.nbytes
    assert activations.admit([30, 30]) == 2
    inside = [torch.zeros(10) for _ in range(2)]
    for tensor in inside:
        activations.keep(tensor)
    assert activations.spilled_bytes == states.nbytes + inside[0].nbytes
    del inside, tensor
    activations.keep(torch.zeros(10))
    assert activations.spilled_bytes == states.nbytes + 40
    assert Activations().admit([1 << 60]) == 1


def test_hidden_states_say_what_they_carry() -> None:
    """Without a float path there is none to ask for."""
    states = HiddenStates(quantized=torch.zeros(2, 3))
    assert states.numel == 6
    assert not states.has_float_path
    assert states.float_path is None
    with pytest.raises(ValueError, match="float path"):
        states.float_states()


def test_taken_states_are_held_by_whoever_took_them(tmp_path: Path) -> None:
    """In memory and on disk: they are handed on once, and what was made another of them before stays readable."""
    for keep in (Activations().keep, Activations(0, tmp_path).keep):
        states = HiddenStates(quantized=keep(torch.ones(2, 3)), float_path=keep(torch.zeros(2, 3)))
        other = states.another()
        for taken in (states.take_quantized(), states.take_float_states()):
            taken.set_()
        assert torch.equal(other.quantized, torch.ones(2, 3))
        assert torch.equal(other.float_states(), torch.zeros(2, 3))
        assert states.numel == 6
        assert states.has_float_path
        for read in (partial(getattr, states, "quantized"), states.float_states, states.another().float_states):
            with pytest.raises(ValueError, match="handed on"):
                read()
