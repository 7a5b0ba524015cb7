"""Round-to-nearest on the grid that GPTQ uses too: the floor that every other method must beat."""

from __future__ import annotations

import torch

from core.solver import grid
from core.weights import QuantizedWeight


def round_to_nearest(W_OI: torch.Tensor, *, bits: int, group_size: int, sym: bool) -> QuantizedWeight:
    """Rounds a float [O, I] weight on min-max scales; I must be a multiple of the group size."""
    W_OI = W_OI.float()
    size = W_OI.shape[1] if group_size == -1 else group_size
    fitted = grid.minmax_grid(grid.in_groups(W_OI, size), bits=bits, sym=sym)
    return round_on(W_OI, fitted, bits=bits, group_size=group_size, sym=sym)


def round_on(W_OI: torch.Tensor, fitted: grid.Grid, *, bits: int, group_size: int, sym: bool) -> QuantizedWeight:
    """Rounds a float32 [O, I] weight on the grid that was fitted to its groups."""
    size = W_OI.shape[1] if group_size == -1 else group_size
    group_I = torch.arange(W_OI.shape[1], device=W_OI.device) // size
    return QuantizedWeight(
        codes_OI=grid.encode(W_OI, fitted.scales_OG[:, group_I], fitted.zeros_OG[:, group_I], bits),
        scales_OG=fitted.scales_OG.half(),
        zeros_OG=fitted.zeros_OG.to(torch.uint8),
        g_idx_I=group_I.to(torch.int32),
        bits=bits,
        group_size=group_size,
        sym=sym,
    )
