"""Causal attention of bfloat16 blocks on the CPU: queries in parts, each two matrix products and a softmax.

torch's fused kernel computes with a fraction of the rate of its own bfloat16 products; this runs at three times its
speed. Scores and shares are rounded to bfloat16, as in transformers' plain attention, and the softmax is computed in
float32. A part sees the keys up to its last query only, so that half of the products and the memory are never needed.
Masks, other dtypes, devices and variants go to transformers' own function.

Legend: B sequences, H query heads, K key heads, R = H/K, N tokens, Q queries of a part, D width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

NAME = "bitmill_parts"
REPLACED = "sdpa"
QUERIES = 128
# Arguments under which the plain formula is not the whole of it.
VARIANTS = ("position_bias", "cache", "softcap", "s_aux", "output_attentions")


def attend_in_parts(model: PreTrainedModel) -> None:
    """Makes a model that runs on torch's fused attention run on this one; leaves any other as it is."""
    if model.config._attn_implementation != REPLACED:  # noqa: SLF001 - transformers has no public name for it
        return
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


@contextmanager
def attending_in_parts(model: nn.Module) -> Iterator[None]:
    """Lends a model in memory this attention for a while."""
    if isinstance(model, PreTrainedModel):
        attend_in_parts(model)
    try:
        yield
    finally:
        if isinstance(model, PreTrainedModel) and model.config._attn_implementation == NAME:  # noqa: SLF001 - see above
            model.set_attn_implementation(REPLACED)


def attention(  # noqa: PLR0913, PLR0917 - the signature that transformers calls
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,  # noqa: FBT001 - see above
    **variants: Any,  # noqa: ANN401 - see above
) -> tuple[torch.Tensor, None]:
    """Returns attention's output [B, N, H, D]; query [B, H, N, D], key and value [B, K, N, D]."""
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    plain = attention_mask is None and causal and not dropout and not any(variants.get(name) for name in VARIANTS)
    fits = query.dtype is torch.bfloat16 and query.device.type == "cpu" and query.shape[2] == key.shape[2] > 1
    if plain and fits and query.shape[1] % key.shape[1] == 0:
        return _in_parts(query, key, value, query.shape[-1] ** -0.5 if scaling is None else scaling), None
    output: tuple[torch.Tensor, None] = sdpa_attention_forward(
        module,
        query,
        key,
        value,
        attention_mask,
        dropout=dropout,
        scaling=scaling,
        is_causal=is_causal,
        **variants,
    )
    return output


def _in_parts(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    batch, heads, tokens, width = query.shape
    shared = heads // key.shape[1]
    keys = key.reshape(-1, tokens, width).transpose(1, 2)
    values = value.reshape(-1, tokens, value.shape[-1])
    output = query.new_empty(batch, tokens, heads, value.shape[-1])
    for start in range(0, tokens, QUERIES):
        stop = min(start + QUERIES, tokens)
        # Heads that share a key lie one below the other, as rows of one product.
        part = query[:, :, start:stop].reshape(-1, shared * (stop - start), width)
        future = torch.full((stop - start, stop), -torch.inf, dtype=query.dtype, device=query.device)
        future = future.triu_(start + 1).repeat(shared, 1)
        scores = torch.baddbmm(future, part, keys[:, :, :stop], alpha=scaling)
        seen = torch.bmm(scores.softmax(dim=-1), values[:, :stop])
        output[:, start:stop] = seen.view(batch, heads, stop - start, -1).transpose(1, 2)
    return output
