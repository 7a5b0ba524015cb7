"""AWQ's search (Lin et al. 2023, arXiv 2306.00978): how much finer each input channel's weights should be rounded.

Channel j of the weights is multiplied by s_j before rounding and divided by it behind. s_j = r_j^alpha with r_j the
channel's root mean square input, and alpha is searched for the least output loss tr((W-Ŵ)H(W-Ŵ)ᵀ). Here s_j is rounded
to a power of two: whatever takes 1/s_j over, a norm or the scales of a linear in front, then holds the exact product.

Legend: O out_features, I in_features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from core.solver.loss import quadratic_loss


def search_exponents(
    weights: Sequence[torch.Tensor],
    H_II: torch.Tensor,
    steps: int,
    allowed: Callable[[torch.Tensor], torch.Tensor],
    rounded: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, float]:
    """Returns the exponents of two, int64 [I], and the alpha that they come from; zeros where nothing is better.

    weights: float32 [O, I], of all linears behind the same inputs. steps: alpha is tried at 0, 1/steps, … 1. allowed:
    the whole exponents that can be taken over, nearest to those given. rounded: Ŵ of a weight.
    """
    energy_I = H_II.diagonal().clamp(min=torch.finfo(torch.float32).tiny)
    wanted_I = 0.5 * (energy_I.log2() - energy_I.log2().mean())
    wanted_I = torch.where(H_II.diagonal() > 0, wanted_I, torch.zeros_like(wanted_I))
    best_I, best_alpha = torch.zeros(len(wanted_I), dtype=torch.int64, device=H_II.device), 0.0
    best = _loss(weights, H_II, best_I, rounded)
    for step in range(1, steps + 1):
        exponents_I = allowed(wanted_I * (step / steps))
        loss = _loss(weights, H_II, exponents_I, rounded)
        if loss < best:
            best, best_I, best_alpha = loss, exponents_I, step / steps
    return best_I, best_alpha


def _loss(
    weights: Sequence[torch.Tensor],
    H_II: torch.Tensor,
    exponents_I: torch.Tensor,
    rounded: Callable[[torch.Tensor], torch.Tensor],
) -> float:
    return sum(
        quadratic_loss(torch.ldexp(rounded(torch.ldexp(W_OI, exponents_I)), -exponents_I) - W_OI, H_II)
        for W_OI in weights
    )


def exact_exponents(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the smallest and the largest e for which every value of a row, divided by 2^e, stays a normal float16.

    values: [R, ...]; 0 is always between the two. float16 has the narrowest range of the dtypes that are stored.
    """
    sizes = values.detach().float().abs().reshape(values.shape[0], -1)
    largest_R = torch.log2(sizes.amax(dim=1).clamp(min=2.0**-14))
    smallest_R = torch.log2(torch.where(sizes == 0, torch.inf, sizes).amin(dim=1).clamp(max=2.0**15))
    return (largest_R - 15).ceil().long().clamp(max=0), (smallest_R + 14).floor().long().clamp(min=0)
