"""Chooses, by the device that the tensors lie on, who runs the solver's inner loops.

The CPU has kernels compiled by Numba, CUDA a column solve compiled by Triton; whatever else there is, and a CPU without
Numba, runs the torch reference, whose results are the same.
"""

from __future__ import annotations

import torch

from core.kernels.compiled import trouble
from core.solver import reference


def solve_columns(
    W_OC: torch.Tensor, U_CC: torch.Tensor, scales_OC: torch.Tensor, zeros_OC: torch.Tensor, top_code: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Solves the columns of one update in order, pushing each residual onto the columns to its right.

    All float32. Returns codes uint8 [O, C] and residuals e = (w - w_hat)/U_jj float32 [O, C]; W_OC is overwritten.
    """
    match W_OC.device.type:
        case "cpu" if trouble() is None:
            from core.kernels import numba_solver  # noqa: PLC0415 - may be missing

            run = numba_solver.solve_columns
        case "cuda":
            # Triton comes with torch's CUDA builds only.
            from core.kernels import triton_solver  # noqa: PLC0415

            run = triton_solver.solve_columns
        case _:
            run = reference.solve_columns
    return run(W_OC, U_CC, scales_OC, zeros_OC, top_code)


def best_candidate(
    W_OGS: torch.Tensor, cost_GS: torch.Tensor, scales_OGK: torch.Tensor, zero: int, top_code: int
) -> torch.Tensor:
    """Returns, per row and group, the scale with the least weighted squared difference, int64 [O, G]; one zero for all.

    Scales may be negative. The first of equals wins.
    """
    run = reference.best_candidate
    if W_OGS.device.type == "cpu" and trouble() is None:
        from core.kernels import numba_solver  # noqa: PLC0415 - may be missing

        run = numba_solver.best_candidate
    return run(W_OGS, cost_GS, scales_OGK, zero, top_code)


def best_scale_and_zero(
    W_OGS: torch.Tensor, cost_GS: torch.Tensor, scales_OGK: torch.Tensor, zeros_OG: torch.Tensor, top_code: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns, per row and group, the scale's index, int64 [O, G], and the zero, float32 [O, G], of the least loss.

    Scales are positive. The loss of a scale is a convex sequence over zeros: it is that for each weight, whose distance
    to the levels stays while they hold its nearest one and grows by ever more beyond. So a walk downhill from zeros_OG
    finds the best of all zeros from 0 to top_code.
    """
    run = reference.best_scale_and_zero
    if W_OGS.device.type == "cpu" and trouble() is None:
        from core.kernels import numba_solver  # noqa: PLC0415 - may be missing

        run = numba_solver.best_scale_and_zero
    return run(W_OGS, cost_GS, scales_OGK, zeros_OG, top_code)


def refine_codes(
    G_OC: torch.Tensor, H_CC: torch.Tensor, codes_OC: torch.Tensor, scales_O: torch.Tensor, top_code: int
) -> torch.Tensor:
    """Moves each code in turn to the level with the least (w_hat - t) H (w_hat - t)ᵀ, the others fixed, in place.

    G_OC = (W_hat - T) H on entry and at every move; overwritten. codes are whole numbers in float32, scales_O one per
    row. Returns what the moves added to the weights, float32 [O, C].
    """
    run = reference.refine_codes
    if G_OC.device.type == "cpu" and trouble() is None:
        from core.kernels import numba_solver  # noqa: PLC0415 - may be missing

        run = numba_solver.refine_codes
    return run(G_OC, H_CC, codes_OC, scales_O, top_code)
