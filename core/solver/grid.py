"""Turns a group of weights into a scale and a zero, and weights into codes on that grid.

Codes run from 0 to 2^bits-1 and W_hat = scales · (codes - zeros). A scale is rounded to float16, the dtype in which it
is stored, before anything is computed from it: the residual that GPTQ feeds forward is then the one that loaders see.

Legend: O out_features, I in_features, G groups, S inputs in a group, K candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from core.errors import NumericalError
from core.profile import Work, span
from core.solver import kernels

# The factors by which a group's range is shrunk during a scale search. Below 0.35 no 2-bit group was ever best.
SHRINK_FACTORS = tuple(1.0 - 0.0105 * step for step in range(64))
# Scales that are tried at a time: they pass through the second-level cache several times.
CANDIDATES_AT_ONCE = 2**18
SMALLEST_SCALE = 2.0**-24  # float16's smallest subnormal: a scale of 0 would make codes undefined
LARGEST_SCALE = 65504.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Scales and zeros of some groups, both float32 [O, G]; scales hold float16 values, zeros whole numbers."""

    scales_OG: torch.Tensor  # noqa: N815 - shapes live in names
    zeros_OG: torch.Tensor  # noqa: N815


def top_code(bits: int) -> int:
    """Returns the largest code, 2^bits - 1."""
    return (1 << bits) - 1


@span(Work.SEARCH)
def minmax_grid(W_OGS: torch.Tensor, *, bits: int, sym: bool) -> Grid:
    """Fits each group's grid to the range of its weights (GPTQ paper, §4): float32 [O, G, S] in, Grid out.

    sym: zero fixed at 2^(bits-1), the scale spans ±max|w|. Otherwise the range is widened to hold 0.
    Raises NumericalError where a scale does not fit float16.
    """
    return _ranged_grid(*_range(W_OGS, sym=sym), bits=bits, sym=sym)


@span(Work.SEARCH)
def searched_grid(W_OGS: torch.Tensor, cost_GS: torch.Tensor, *, bits: int, sym: bool, signed: bool = False) -> Grid:
    """Picks, per row and group, the grid with the least Σ_j c_j (w_j - s·(clip(round(w_j/s)+z) - z))².

    cost_GS holds c_j ≥ 0, float32 [G, S]. Scales are those of the range shrunk by SHRINK_FACTORS, with either sign
    where `signed` and symmetric; an asymmetric grid has the best zero of all for its scale, bound to no range. Raises
    NumericalError as `minmax_grid`.
    """
    rows = max(1, CANDIDATES_AT_ONCE // (W_OGS.shape[1] * len(SHRINK_FACTORS)))
    found = [_searched(part, cost_GS, bits=bits, sym=sym, signed=signed) for part in torch.split(W_OGS, rows)]
    return Grid(
        scales_OG=torch.cat([part.scales_OG for part in found]), zeros_OG=torch.cat([part.zeros_OG for part in found])
    )


def _searched(W_OGS: torch.Tensor, cost_GS: torch.Tensor, *, bits: int, sym: bool, signed: bool) -> Grid:
    low_OG, high_OG = _range(W_OGS, sym=sym)
    widest = _ranged_grid(low_OG, high_OG, bits=bits, sym=sym)
    factors_K = torch.tensor(SHRINK_FACTORS, dtype=torch.float32, device=W_OGS.device)
    shrunk_OGK = (high_OG - low_OG)[..., None] * factors_K
    scales_OGK = _rounded(shrunk_OGK.div_(top_code(bits)))
    if sym:
        if signed:
            _give_signs(scales_OGK[..., 1::2], W_OGS, bits)
        best_OG = kernels.best_candidate(W_OGS, cost_GS, scales_OGK, _middle(bits), top_code(bits))
        zeros_OG = widest.zeros_OG
    else:
        best_OG, zeros_OG = kernels.best_scale_and_zero(W_OGS, cost_GS, scales_OGK, widest.zeros_OG, top_code(bits))
    return Grid(scales_OG=scales_OGK.gather(-1, best_OG[..., None])[..., 0], zeros_OG=zeros_OG)


def _give_signs(scales_OGK: torch.Tensor, W_OGS: torch.Tensor, bits: int) -> None:
    """Makes of each scale, in place, the one with which the largest weight lies on the extra negative level."""
    largest_OG1 = W_OGS.gather(-1, W_OGS.abs().argmax(dim=-1, keepdim=True))
    share = top_code(bits) / float(1 << bits)  # the range ends at code 0, half a step beyond the unsigned one's
    signed_OGK = _rounded(scales_OGK * share).mul_(-torch.sign(largest_OG1))
    scales_OGK.copy_(torch.where(largest_OG1 == 0, scales_OGK, signed_OGK))


def in_groups(W_OI: torch.Tensor, size: int) -> torch.Tensor:
    """Returns the weight as [O, G, S]; I must be a multiple of S."""
    return W_OI.reshape(W_OI.shape[0], -1, size)


def encode(W_OI: torch.Tensor, scales_OI: torch.Tensor, zeros_OI: torch.Tensor, bits: int) -> torch.Tensor:
    """Rounds to the nearest code, ties to even: float32 [O, I] each, uint8 codes out."""
    return (torch.round(W_OI / scales_OI) + zeros_OI).clamp_(0, top_code(bits)).to(torch.uint8)


def _range(W_OGS: torch.Tensor, *, sym: bool) -> tuple[torch.Tensor, torch.Tensor]:
    if sym:
        reach_OG = W_OGS.abs().amax(dim=-1)
        return -reach_OG, reach_OG
    return W_OGS.amin(dim=-1).clamp_(max=0), W_OGS.amax(dim=-1).clamp_(min=0)


def _ranged_grid(low: torch.Tensor, high: torch.Tensor, *, bits: int, sym: bool) -> Grid:
    scales = stored_scale((high - low) / top_code(bits))
    if sym:
        zeros = torch.full_like(scales, float(_middle(bits)))
    else:
        zeros = torch.round(-low / scales).clamp_(0, top_code(bits))
    return Grid(scales_OG=scales, zeros_OG=zeros)


def _middle(bits: int) -> int:
    """Returns the zero of symmetric grids."""
    return 1 << (bits - 1)


def stored_scale(scales: torch.Tensor) -> torch.Tensor:
    """Rounds positive scales to float16 values, 1 where the range is empty; raises NumericalError above float16."""
    if not bool(torch.isfinite(scales).all()) or bool((scales > LARGEST_SCALE).any()):
        raise NumericalError("scales", "A scale is not finite or above float16's range: the weights are out of range.")
    return _rounded(scales)


def _rounded(scales: torch.Tensor) -> torch.Tensor:
    return scales.half().float().clamp_(min=SMALLEST_SCALE).masked_fill_(scales == 0, 1.0)
