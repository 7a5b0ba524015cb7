"""NF4 by bitsandbytes: rounded as its definition says, only inside the blocks, and named where it is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import get_4bit_type

from core.errors import MissingPackageError
from core.evaluation.fidelity import compare_models
from core.evaluation.loading import load_model
from core.evaluation.nf4 import BLOCK, NF4
from core.model.structure import find_linears, linear_weight, set_linear_weight
from tests.core.evaluation.models import FAMILIES, save_model

TOKENS_NT = torch.randint(2, 320, (3, 40), generator=torch.Generator().manual_seed(3))


def round_by_definition(W_OI: torch.Tensor) -> torch.Tensor:
    """Returns each weight as the nearest of the sixteen values, in units of its block's largest weight."""
    levels_L = get_4bit_type("nf4", device="cpu").float()
    blocks_BK = W_OI.reshape(-1, BLOCK)
    scales_B1 = blocks_BK.abs().amax(dim=1, keepdim=True)
    nearest_BK = (blocks_BK / scales_B1)[..., None].sub(levels_L).abs().argmin(dim=-1)
    return (levels_L[nearest_BK] * scales_B1).reshape(W_OI.shape)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_model_with_rounded_linears(tmp_path: Path, family: str):
    """Stored as [out, in] or [in, out], the blocks' linears are rounded along rows; all else is the float model."""
    save_model(tmp_path / "float", family)
    by_hand = load_model(tmp_path / "float")
    for block in by_hand.get_decoder().layers if family != "gpt2" else by_hand.transformer.h:
        for module in find_linears(block).values():
            set_linear_weight(module, round_by_definition(linear_weight(module)))
    by_hand.save_pretrained(tmp_path / "rounded")
    expected, found = compare_models(tmp_path / "float", [tmp_path / "rounded", NF4(tmp_path / "float")], TOKENS_NT)
    assert 0 < found.kl_divergence == pytest.approx(expected.kl_divergence, rel=1e-3)
    assert found.perplexity_quantized == pytest.approx(expected.perplexity_quantized, rel=1e-5)


def test_its_size_counts_codes_and_scales(tmp_path: Path):
    """Four and a half bits per weight of a block's linears; what stays in float counts as it is stored."""
    model = save_model(tmp_path, dtype=torch.bfloat16)
    linears = sum(linear_weight(one).numel() for block in model.model.layers for one in find_linears(block).values())
    whole = sum(parameter.numel() for parameter in model.parameters())
    assert NF4(tmp_path).weight_bytes() == linears * 4.5 / 8 + (whole - linears) * 2


def test_a_missing_package_is_named_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With what installs it."""
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.delitem(sys.modules, "bitsandbytes.functional", raising=False)
    with pytest.raises(MissingPackageError, match=r"pip install 'bitmill\[nf4\]'"):
        NF4(tmp_path)
