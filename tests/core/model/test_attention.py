from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from core.kernels.vectors import has_feature
from core.model import attention as blockwise
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
@pytest.mark.parametrize("width", [16, 40, 64])
@pytest.mark.parametrize("tokens", [2, 48, 129, 300])
def test_it_is_causal_attention(tokens: int, width: int, heads: int, key_heads: int, scaling: float | None) -> None:
    """As exact as bfloat16 shares are, for any number of blocks and of heads that share a key, of any width."""
    query, key, value = _operands(heads, key_heads, tokens, width)
    module = _Module(heads // key_heads)
    got, weights = blockwise.attention(module, query, key, value, None, scaling=scaling)
    exact, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), None, scaling=scaling)
    assert weights is None
    assert got.dtype is torch.bfloat16
    assert got.shape == exact.shape
    torch.testing.assert_close(got.float(), exact, rtol=0.02, atol=0.03)


def test_scores_far_apart_end_in_the_nearest_key() -> None:
    """Where one key's score is hundreds above the others', what is seen is its value, with no overflow on the way."""
    query, key, value = _operands(2, 2, 70, 16)
    got, _ = blockwise.attention(_Module(1), query, key, value, None, scaling=100.0)
    exact, _ = sdpa_attention_forward(_Module(1), query.float(), key.float(), value.float(), None, scaling=100.0)
    assert got.isfinite().all()
    torch.testing.assert_close(got.float(), exact, rtol=0.02, atol=0.03)


def test_a_key_that_is_no_number_spoils_the_queries_behind_it_alone() -> None:
    """Whoever looks for values that are not finite finds them, and the tokens before are what they were."""
    query, key, value = _operands(2, 2, 70, 16)
    clean, _ = blockwise.attention(_Module(1), query, key, value, None)
    key[:, :, 50] = torch.nan
    got, _ = blockwise.attention(_Module(1), query, key, value, None)
    assert torch.equal(got[:, :50], clean[:, :50])
    assert got[:, 50:].isnan().all()


def test_the_kernel_serves_where_the_processor_has_its_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers' function is not asked there, and is elsewhere."""
    asked: list[bool] = []
    monkeypatch.setattr(blockwise, "sdpa_attention_forward", lambda *_, **__: asked.append(True))
    blockwise.attention(_Module(2), *_operands(4, 2, 40, 16), None)
    assert bool(asked) is not has_feature("avx512bf16")


@pytest.mark.parametrize("form", ["mask", "not causal", "float32", "fewer queries", "odd width"])
def test_everything_else_is_left_to_transformers(form: str) -> None:
    """A mask, another dtype, a block that looks ahead or a cache's longer keys: the very same bytes."""
    query, key, value = _operands(4, 2, 40, 16)
    mask = torch.rand(2, 1, 40, 40) > 0.2 if form == "mask" else None
    module = _Module(2, is_causal=form != "not causal")
    if form == "float32":
        query, key, value = query.float(), key.float(), value.float()
    if form == "odd width":
        query, key, value = (heads[..., :15] for heads in (query, key, value))
    if form == "fewer queries":
        query = query[:, :, :7]
    got, _ = blockwise.attention(module, query, key, value, mask)
    expected, _ = sdpa_attention_forward(module, query, key, value, mask)
    assert torch.equal(got, expected)


def test_a_model_in_memory_gets_its_own_attention_back() -> None:
    """It is lent for a while."""
    model = tiny_model()
    with blockwise.attending_blockwise(model):
        assert model.config._attn_implementation == blockwise.NAME
    assert model.config._attn_implementation == blockwise.REPLACED
