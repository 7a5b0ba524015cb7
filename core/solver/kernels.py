"""Chooses, by the device that the tensors lie on, who runs the solver's inner loops.

The CPU has kernels compiled by Numba, CUDA a column solve compiled by Triton; whatever else there is, and a CPU without
Numba, runs the torch reference, whose results are the same.
"""

from __future__ import annotations

import torch

from core.kernels.columns import RefinedColumns
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


def step_scales(columns: RefinedColumns, gradient_OS: torch.Tensor, image_OS: torch.Tensor) -> torch.Tensor:
    """Moves a group's scales to their least-squares values, the codes fixed, where that is a gain.

    gradient_OS = (W_hat - T) H and image_OS = levels · H, float32. `columns.scales_O` moves in place, to float16 values
    of the same sign; returns by how much, float32 [O].
    """
    run = reference.step_scales
    if gradient_OS.device.type == "cpu" and trouble() is None:
        from core.kernels import numba_refine  # noqa: PLC0415 - Numba may be missing

        run = numba_refine.step_scales
    return run(columns, gradient_OS, image_OS)


def refine_codes(
    columns: RefinedColumns,
    gradient_OC: torch.Tensor,
    image_OC: torch.Tensor,
    step_O: torch.Tensor,
    H_CC: torch.Tensor,
    top_code: int,
) -> torch.Tensor:
    """Notes that the scales have moved by a step, then moves each code in turn to its best level, the others fixed.

    The best level has the least (w_hat - t) H (w_hat - t)ᵀ. gradient_OC = (W_hat - T) H and image_OC = levels · H, both
    before that step, which `columns.scales_O` has. Codes, differences and flags change in place, gradients may. Returns
    what the codes' moves alone added to the weights, float32 [O, C].
    """
    run = reference.refine_codes
    if gradient_OC.device.type == "cpu" and trouble() is None:
        from core.kernels import numba_refine  # noqa: PLC0415 - Numba may be missing

        run = numba_refine.refine_codes
    return run(columns, gradient_OC, image_OC, step_O, H_CC, top_code)
