"""Improves a solved weight: least-squares scales with the codes fixed, then codes one by one with the scales fixed.

Both lower tr((Ŵ-T)(H+λI)(Ŵ-T)ᵀ), the loss that the column solve lowers greedily, so no round can raise it. Scales stay
on float16 values, zeros and the signs of scales stay as they are.

Legend: O out_features, I in_features, G groups, S inputs in a group.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from core.solver import grid, kernels
from core.weights import QuantizedWeight


def refine(
    weight: QuantizedWeight, target_OI: torch.Tensor, H_II: torch.Tensor, *, damp: float, rounds: int
) -> QuantizedWeight:
    """Returns the weight after some rounds; target float32 [O, I], H symmetric, damp is the λ that is added to it."""
    members_GS = torch.argsort(weight.g_idx_I, stable=True).view(weight.scales_OG.shape[1], -1)
    damped_II = H_II.clone()
    damped_II.diagonal().add_(damp)
    codes_OI, scales_OG = weight.codes_OI.float(), weight.scales_OG.float()
    gradient_OI = (weight.dequantize() - target_OI) @ damped_II
    kernels.refine(
        gradient_OI,
        damped_II,
        codes_OI,
        scales_OG,
        weight.zeros_OG.float(),
        members_GS,
        grid.top_code(weight.bits),
        rounds,
    )
    return replace(weight, codes_OI=codes_OI.to(torch.uint8), scales_OG=scales_OG.half())
