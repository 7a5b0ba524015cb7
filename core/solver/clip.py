"""Clips ranges where that lowers the output loss of a group, and keeps the better of several weights row by row.

The search is AWQ's (Lin et al. 2023, arXiv 2306.00978, "weight clipping"): a group's output on its own inputs is what
counts. With H_gg, the Hessian's block of the group, that is d H_gg dᵀ for a row's rounding differences d, without
stored inputs.

Legend: O out_features, I in_features, G groups, S inputs in a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from core.solver import grid
from core.weights import QuantizedWeight

CLIP_FACTORS = tuple(1.0 - 0.025 * step for step in range(21))
"""Shares of the range that are tried, down to a half."""


def clipped_grid(W_OI: torch.Tensor, H_II: torch.Tensor, *, bits: int, group_size: int, sym: bool) -> grid.Grid:
    """Returns, per row and group, the clipped min-max grid with the least loss of the group alone; float32 in."""
    size = W_OI.shape[1] if group_size == -1 else group_size
    W_OGS = grid.in_groups(W_OI, size)
    H_GSS = _diagonal_blocks(H_II, size)
    tried = [grid.minmax_grid(W_OGS * factor, bits=bits, sym=sym) for factor in CLIP_FACTORS]
    losses_KOG = torch.stack([_group_losses(W_OGS, candidate, H_GSS, bits) for candidate in tried])
    best_1OG = losses_KOG.argmin(dim=0, keepdim=True)
    return grid.Grid(
        scales_OG=torch.stack([candidate.scales_OG for candidate in tried]).gather(0, best_1OG)[0],
        zeros_OG=torch.stack([candidate.zeros_OG for candidate in tried]).gather(0, best_1OG)[0],
    )


def best_rows(W_OI: torch.Tensor, H_II: torch.Tensor, tried: Sequence[QuantizedWeight]) -> QuantizedWeight:
    """Returns each row from the weight in which its loss is least, the first of equals; all on one group layout."""
    losses_KO = torch.stack([_row_losses(weight.dequantize() - W_OI, H_II) for weight in tried])
    best_O = losses_KO.argmin(dim=0)
    rows_O = torch.arange(W_OI.shape[0], device=W_OI.device)
    return replace(
        tried[0],
        codes_OI=torch.stack([weight.codes_OI for weight in tried])[best_O, rows_O],
        scales_OG=torch.stack([weight.scales_OG for weight in tried])[best_O, rows_O],
        zeros_OG=torch.stack([weight.zeros_OG for weight in tried])[best_O, rows_O],
    )


def _row_losses(D_OI: torch.Tensor, H_II: torch.Tensor) -> torch.Tensor:
    return torch.einsum("oi,oi->o", D_OI @ H_II, D_OI)


def _group_losses(W_OGS: torch.Tensor, tried: grid.Grid, H_GSS: torch.Tensor, bits: int) -> torch.Tensor:
    scales_OG1, zeros_OG1 = tried.scales_OG[..., None], tried.zeros_OG[..., None]
    codes_OGS = (torch.round(W_OGS / scales_OG1) + zeros_OG1).clamp_(0, grid.top_code(bits))
    D_GOS = (scales_OG1 * (codes_OGS - zeros_OG1) - W_OGS).transpose(0, 1)
    return torch.einsum("gos,gos->og", torch.bmm(D_GOS, H_GSS), D_GOS)


def _diagonal_blocks(H_II: torch.Tensor, size: int) -> torch.Tensor:
    """Returns the blocks of a group with itself, [G, S, S]."""
    groups = H_II.shape[0] // size
    return H_II.reshape(groups, size, groups, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1).contiguous()
