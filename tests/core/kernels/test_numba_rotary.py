from __future__ import annotations

import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from core.kernels.numba_rotary import rotate


@pytest.mark.parametrize("own_positions", [False, True])
@pytest.mark.parametrize(("heads", "tokens", "width"), [(1, 1, 2), (3, 70, 16), (2, 64, 10), (4, 130, 64)])
def test_heads_are_rotated_bit_by_bit_as_transformers_does(
    heads: int, tokens: int, width: int, own_positions: bool
) -> None:
    """Of whole and partial turns, odd halves, heads that lie behind each other or tokens, positions shared or not."""
    generator = torch.Generator().manual_seed(tokens)
    tokens_first = torch.randn(2, tokens, heads, width, generator=generator).bfloat16().transpose(1, 2)
    cos, sin = torch.randn(2, 2 if own_positions else 1, tokens, width, generator=generator).bfloat16()
    for x in (tokens_first, tokens_first.contiguous()):
        found = rotate(x, cos, sin)
        assert torch.equal(found, apply_rotary_pos_emb(x, x, cos, sin)[0])
        assert found.is_contiguous()


def test_part_of_a_head_is_rotated_where_it_lies_among_the_rest() -> None:
    """A view that leaves out the last columns, as partial rotations hand it over."""
    x = torch.randn(2, 3, 5, 16, generator=torch.Generator().manual_seed(0)).bfloat16()[..., :8]
    cos, sin = torch.randn(2, 1, 5, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    assert torch.equal(rotate(x, cos, sin), apply_rotary_pos_emb(x, x, cos, sin)[0])


def test_what_is_not_finite_stays_with_its_token() -> None:
    """A NaN or an infinity reaches its own head of its own token alone."""
    x = torch.ones(1, 2, 4, 8).bfloat16()
    x[0, 0, 1, 3], x[0, 1, 2, 5] = torch.nan, torch.inf
    cos = torch.full((1, 4, 8), 0.5).bfloat16()
    found = rotate(x, cos, cos)
    assert torch.equal(found.isfinite(), apply_rotary_pos_emb(x, x, cos, cos)[0].isfinite())
    assert found[0, 0, 1].isnan().any()
    assert found[0, 1, 2].isinf().any()
    assert found[0, :, [0, 3]].isfinite().all()
