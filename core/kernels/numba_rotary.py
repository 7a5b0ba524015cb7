"""Rotary position embeddings of bfloat16 heads in one pass; torch makes seven tensors of their size on the way.

x · cos + rotate_half(x) · sin (https://arxiv.org/abs/2104.09864), both products and their sum rounded to bfloat16 as
torch rounds them: the results are the same bit by bit. Heads are written one behind the other, as attention reads them.

Legend: B sequences, N tokens, H heads, D width of a head, S sequences with positions of their own, or 1.
"""

from __future__ import annotations

import numba
import numpy as np
import torch

from core.kernels.bfloat16 import Bfloats, bits_of, rounded, widened

# Tokens of one turn of a thread.
TOKENS = 64


def rotate(heads: torch.Tensor, cos_SND: torch.Tensor, sin_SND: torch.Tensor) -> torch.Tensor:
    """Returns heads [B, H, N, D], of any strides, rotated; contiguous. All bfloat16, on the CPU, D even."""
    out = torch.empty(heads.shape, dtype=torch.bfloat16)
    x, cos, sin = (bits_of(tensor.contiguous()) for tensor in (heads.transpose(1, 2), cos_SND, sin_SND))
    _rotate(x, cos, sin, bits_of(out))
    return out


@numba.njit(parallel=True, cache=True, nogil=True)
def _rotate(x: Bfloats, cos: Bfloats, sin: Bfloats, out: Bfloats) -> None:
    batch, tokens, heads, _ = x.shape
    turns = (tokens + TOKENS - 1) // TOKENS
    for number in numba.prange(batch * turns):
        sequence, first = int(np.intp(number)) // turns, int(np.intp(number)) % turns * TOKENS
        place = min(sequence, cos.shape[0] - 1)
        for token in range(first, min(first + TOKENS, tokens)):
            for head in range(heads):
                _rotate_head(x[sequence, token, head], cos[place, token], sin[place, token], out[sequence, head, token])


@numba.njit(cache=True, nogil=True)
def _rotate_head(x: Bfloats, cos: Bfloats, sin: Bfloats, out: Bfloats) -> None:
    half = x.shape[0] // 2
    early_x, late_x = x[:half], x[half:]
    early_out, late_out = out[:half], out[half:]
    for column in range(half):
        early, late = widened(early_x[column]), widened(late_x[column])
        straight, crossed = rounded(early * widened(cos[column])), rounded(-late * widened(sin[column]))
        early_out[column] = rounded(widened(straight) + widened(crossed))
        straight = rounded(late * widened(cos[half + column]))
        crossed = rounded(early * widened(sin[half + column]))
        late_out[column] = rounded(widened(straight) + widened(crossed))
