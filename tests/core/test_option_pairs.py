"""GPTQ's options together: every pair of values occurs in a run, and each run's artifact is read back independently."""

from __future__ import annotations

import itertools
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.calibration.windows import CalibrationWindows
from core.configs import AWQConfig, GPTQConfig, Order, ScaleSearch
from core.evaluation.loading import load_model
from core.pipeline import quantize_checkpoint
from tests.core.tiny import random_tokens, write_tiny_model
from tests.reference.unpacker import dequantized_weight

VALUES: dict[str, tuple[Any, ...]] = {
    "order": tuple(Order),
    "bits": (2, 3, 4, 8),
    "group_size": (-1, 16, 32),
    "scale_search": tuple(ScaleSearch),
    "sym": (True, False),
    "signed_scales": (True, False),
    "refine_rounds": (0, 2),
    "hold_out": (True, False),
    "true_sequential": (True, False),
    "mismatch_alpha": (0.0, 0.75),
    "mismatch_every": (1, 2),
    "stream_beta": (0.0, 0.75),
    "lm_head": (True, False),
    "embeddings": (True, False),
}
Choice = tuple[Any, ...]


def pairs_of(row: Choice) -> set[tuple[int, Any, int, Any]]:
    """Returns the pairs of values in one row, with the numbers of their options."""
    return {(i, row[i], j, row[j]) for i, j in itertools.combinations(range(len(row)), 2)}


def covering_rows() -> list[Choice]:
    """Returns rows, one value per option, in which each pair of values of two options occurs; greedy and seeded."""
    names, choices = list(VALUES), random.Random(0)
    missing = {
        (i, first, j, second)
        for i, j in itertools.combinations(range(len(names)), 2)
        for first, second in itertools.product(VALUES[names[i]], VALUES[names[j]])
    }
    rows = []
    while missing:
        i, first, j, second = min(missing, key=repr)
        tries = [[choices.choice(VALUES[name]) for name in names] for _ in range(200)]
        for row in tries:
            row[i], row[j] = first, second
        best = max((tuple(row) for row in tries), key=lambda row: len(pairs_of(row) & missing))
        rows.append(best)
        missing -= pairs_of(best)
    return rows


ROWS = covering_rows()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of one block, whose vocabulary fills groups and words of codes."""
    return write_tiny_model(tmp_path_factory.mktemp("pairs") / "model", num_hidden_layers=1, vocab_size=288)


@cache
def calibration() -> CalibrationWindows:
    """Eight batches, so that one of them can be held out."""
    tokens = random_tokens(64, 256)
    return CalibrationWindows(tokens_NT=tokens, sha256="0" * 64, tokens_available=tokens.numel())


def test_every_pair_of_values_occurs() -> None:
    """And in few rows."""
    pairs = set().union(*map(pairs_of, ROWS))
    sizes = [len(values) for values in VALUES.values()]
    assert len(pairs) == sum(first * second for first, second in itertools.combinations(sizes, 2))
    assert len(ROWS) <= 40


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(map(str, row)))
def test_options_work_together(row: Choice, source: Path, tmp_path: Path) -> None:
    """The artifact holds what our loader reads, all finite; where it solves for the weights alone it beats rounding."""
    config = GPTQConfig(**dict(zip(VALUES, row, strict=True)))
    report = quantize_checkpoint(source, tmp_path / "out", config, calibration())
    stored = load_file(tmp_path / "out" / "model.safetensors")
    model = load_model(tmp_path / "out")
    weights = dict(model.named_parameters())
    for linear in report.linears[:2] + report.linears[-1:]:
        unpacked = dequantized_weight(linear.name, stored, config.bits, "gptq" if config.sym else "gptq_v2").float()
        loaded = weights[f"{linear.name}.weight"]
        assert torch.equal(loaded, unpacked.T if "embed" in linear.name else unpacked)
    assert all(bool(torch.isfinite(weight).all()) for weight in weights.values())
    assert len(report.linears) == 7 + config.lm_head + config.embeddings
    if config.mismatch_alpha == 0.0:
        rounding = AWQConfig(
            bits=config.bits, group_size=config.group_size, sym=config.sym, channel_steps=0, clip_search=False
        )
        rounded = quantize_checkpoint(source, tmp_path / "rounded", rounding, calibration())
        blocks = [[linear.loss for linear in found.linears if linear.block == 0] for found in (report, rounded)]
        assert sum(filter(None, blocks[0])) < sum(filter(None, blocks[1]))
