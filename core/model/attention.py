"""Causal attention of bfloat16 blocks on the CPU by a kernel of our own, which keeps nothing of the scores but a block.

torch's fused kernel computes with a fraction of the rate of its own bfloat16 products. Masks, other dtypes, devices and
variants, and processors without the kernel's instruction, go to transformers' own function.
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

from core.kernels.compiled import multiplies

NAME = "bitmill_blockwise"
REPLACED = "sdpa"
# Arguments under which the plain formula is not the whole of it.
VARIANTS = ("position_bias", "cache", "softcap", "s_aux", "output_attentions")


def attend_blockwise(model: PreTrainedModel) -> None:
    """Makes a model that runs on torch's fused attention run on this one; leaves any other as it is."""
    if model.config._attn_implementation != REPLACED:  # noqa: SLF001 - transformers has no public name for it
        return
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


@contextmanager
def attending_blockwise(model: nn.Module) -> Iterator[None]:
    """Lends a model in memory this attention for a while."""
    if isinstance(model, PreTrainedModel):
        attend_blockwise(model)
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
    if plain and _has_kernel(query, key, value):
        from core.kernels.numba_attention import causal_attention  # noqa: PLC0415 - Numba may be missing

        return causal_attention(query, key, value, query.shape[-1] ** -0.5 if scaling is None else scaling), None
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


def _has_kernel(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    if query.shape[2] <= 1 or not multiplies(query, torch.bfloat16):
        return False
    from core.kernels.numba_attention import fits  # noqa: PLC0415 - Numba may be missing

    return fits(query, key, value)
