from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from core.model import attention as parts
from tests.core.tiny import tiny_model


class _Module(nn.Module):
    """What attention asks of the module that it is called for."""

    def __init__(self, groups: int, *, is_causal: bool = True) -> None:
        super().__init__()
        self.num_key_value_groups = groups
        self.is_causal = is_causal


def _operands(heads: int, key_heads: int, tokens: int, width: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(tokens)
    shapes = ((2, tokens, heads, width), (2, tokens, key_heads, width), (2, tokens, key_heads, width))
    return tuple(torch.randn(shape, generator=generator).bfloat16().transpose(1, 2) for shape in shapes)


@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize("tokens", [2, 128, 129, 300])
def test_it_is_causal_attention(tokens: int, heads: int, key_heads: int, scaling: float | None) -> None:
    """As exact as bfloat16 scores are, for any number of parts and of heads that share a key."""
    query, key, value = _operands(heads, key_heads, tokens, 16)
    module = _Module(heads // key_heads)
    got, weights = parts.attention(module, query, key, value, None, scaling=scaling)
    exact, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), None, scaling=scaling)
    assert weights is None
    assert got.dtype is torch.bfloat16
    assert got.shape == exact.shape
    torch.testing.assert_close(got.float(), exact, rtol=0.02, atol=0.03)


@pytest.mark.parametrize("form", ["mask", "not causal", "float32", "fewer queries"])
def test_everything_else_is_left_to_transformers(form: str) -> None:
    """A mask, another dtype, a block that looks ahead or a cache's longer keys: the very same bytes."""
    query, key, value = _operands(4, 2, 40, 16)
    mask = torch.rand(2, 1, 40, 40) > 0.2 if form == "mask" else None
    module = _Module(2, is_causal=form != "not causal")
    if form == "float32":
        query, key, value = query.float(), key.float(), value.float()
    if form == "fewer queries":
        query = query[:, :, :7]
    got, _ = parts.attention(module, query, key, value, mask)
    expected, _ = sdpa_attention_forward(module, query, key, value, mask)
    assert torch.equal(got, expected)


def test_a_model_in_memory_gets_its_own_attention_back() -> None:
    """It is lent for a while."""
    model = tiny_model()
    with parts.attending_in_parts(model):
        assert model.config._attn_implementation == parts.NAME
    assert model.config._attn_implementation == parts.REPLACED
