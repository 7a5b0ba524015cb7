"""The column solve for CUDA, compiled by Triton; same contract as `core.solver.kernels.solve_columns`.

A program solves a tile of rows: its weights stay in registers while columns are taken from left to right. What lies
right of the update is the caller's, as one matrix product. Triton comes with torch's CUDA builds; without CUDA it runs
in its interpreter, where the tests compare it with the reference.

Legend: O out_features, C columns of one update.
"""

# ruff: noqa: ANN001, ANN202, PLR0913, PLR0917 - a kernel has pointers and numbers that Triton types

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

ROWS = 16
"""Rows of one program: ROWS x 128 float32 weights fill a quarter of a multiprocessor's registers at four warps."""


def solve_columns(
    W_OC: torch.Tensor, U_CC: torch.Tensor, scales_OC: torch.Tensor, zeros_OC: torch.Tensor, top_code: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Solves the columns of one update; all float32 and contiguous; W_OC is not changed beyond the update."""
    rows, columns = W_OC.shape
    codes_OC = torch.empty(W_OC.shape, dtype=torch.uint8, device=W_OC.device)
    residuals_OC = torch.empty_like(W_OC)
    width: Any = max(16, triton.next_power_of_2(columns))
    top: Any = float(top_code)
    # Triton launches on the thread's device, which need not be the tensors'.
    with torch.cuda.device_of(W_OC):  # type: ignore[no-untyped-call]  # torch's
        _solve_columns[(triton.cdiv(rows, ROWS),)](
            W_OC, U_CC, scales_OC, zeros_OC, codes_OC, residuals_OC, rows, columns, top, ROWS=ROWS, WIDTH=width
        )
    return codes_OC, residuals_OC


@triton.jit  # type: ignore[untyped-decorator]
def _solve_columns(  # type: ignore[no-untyped-def]
    W, U, scales, zeros, codes, residuals, rows, columns, top, ROWS: tl.constexpr, WIDTH: tl.constexpr
):
    row_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column_C = tl.arange(0, WIDTH)
    inside_R = row_R < rows
    places_RC = row_R[:, None] * columns + column_C[None, :]
    inside_RC = inside_R[:, None] & (column_C < columns)[None, :]
    live_RC = tl.load(W + places_RC, mask=inside_RC, other=0.0)
    for column in range(columns):
        here_R = row_R * columns + column
        scale_R = tl.load(scales + here_R, mask=inside_R, other=1.0)
        zero_R = tl.load(zeros + here_R, mask=inside_R, other=0.0)
        weight_R = tl.sum(tl.where((column_C == column)[None, :], live_RC, 0.0), axis=1)
        # Correctly rounded division, and ties to even by adding and subtracting 1.5 x 2^23, exact below 2^22.
        step_R = tl.minimum(tl.maximum(tl.div_rn(weight_R, scale_R), -65536.0), 65536.0)
        code_R = (step_R + 12582912.0) - 12582912.0 + zero_R
        code_R = tl.minimum(tl.maximum(code_R, 0.0), top)
        pivot = tl.load(U + column * columns + column)
        residual_R = tl.div_rn(weight_R - scale_R * (code_R - zero_R), pivot)
        tl.store(codes + here_R, code_R.to(tl.uint8), mask=inside_R)
        tl.store(residuals + here_R, residual_R, mask=inside_R)
        later_C = (column_C > column) & (column_C < columns)
        factor_C = tl.load(U + column * columns + column_C, mask=later_C, other=0.0)
        live_RC = live_RC - residual_R[:, None] * factor_C[None, :]
