"""Chooses, by the device that the tensors lie on, who runs the solver's inner loops.

The CPU has kernels compiled by Numba, CUDA a column solve compiled by Triton; whatever else there is runs the torch
reference, whose results are the same.
"""

from __future__ import annotations

import torch

from core.solver import numba_kernels, reference


def solve_columns(
    W_OC: torch.Tensor, U_CC: torch.Tensor, scales_OC: torch.Tensor, zeros_OC: torch.Tensor, top_code: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Solves the columns of one update in order, pushing each residual onto the columns to its right.

    All float32. Returns codes uint8 [O, C] and residuals e = (w - w_hat)/U_jj float32 [O, C]; W_OC is overwritten.
    """
    match W_OC.device.type:
        case "cpu":
            run = numba_kernels.solve_columns
        case "cuda":
            # Triton comes with torch's CUDA builds only.
            from core.solver import triton_kernels  # noqa: PLC0415

            run = triton_kernels.solve_columns
        case _:
            run = reference.solve_columns
    return run(W_OC, U_CC, scales_OC, zeros_OC, top_code)


def best_candidate(
    W_OGS: torch.Tensor, cost_GS: torch.Tensor, scales_OGK: torch.Tensor, zeros_OGK: torch.Tensor, top_code: int
) -> torch.Tensor:
    """Returns, per row and group, the candidate with the least weighted squared difference, int64 [O, G]."""
    run = numba_kernels.best_candidate if W_OGS.device.type == "cpu" else reference.best_candidate
    return run(W_OGS, cost_GS, scales_OGK, zeros_OGK, top_code)


def refine(  # noqa: PLR0913, PLR0917 - a kernel's operands
    G_OI: torch.Tensor,
    H_II: torch.Tensor,
    codes_OI: torch.Tensor,
    scales_OG: torch.Tensor,
    zeros_OG: torch.Tensor,
    members_GS: torch.Tensor,
    top_code: int,
    rounds: int,
) -> None:
    """Lowers each row's (w_hat - t) H (w_hat - t)ᵀ by turns over its scales and its codes, in place.

    G_OI = (W_hat - T) H on entry. codes are whole numbers in float32; members_GS: the inputs of each group, int64.
    """
    run = numba_kernels.refine if G_OI.device.type == "cpu" else reference.refine
    run(G_OI, H_II, codes_OI, scales_OG, zeros_OG, members_GS, top_code, rounds)
