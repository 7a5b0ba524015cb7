"""The two loops that torch cannot fuse, compiled for the CPU by Numba: the column solve and the scale search.

Each has a plain torch twin in `core.solver.reference`, the oracle of the tests. Rows are independent, so the outer loop
is parallel and the result does not hang on the number of threads. Inner loops run over contiguous lanes without any
reduction: they vectorize without reassociating sums, so the bytes are the same at every vector width.

Legend: O out_features, C columns of one update, G groups, S inputs in a group, K candidates.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]

# Adding and subtracting 1.5·2^23 rounds a float32 below 2^22 to the nearest whole number, ties to even.
_ROUND = np.float32(12582912.0)


def solve_columns(
    W_OC: torch.Tensor,
    U_CC: torch.Tensor,
    scales_OC: torch.Tensor,
    zeros_OC: torch.Tensor,
    top_code: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Solves the columns of one update in order, pushing each residual onto the columns to its right.

    All float32 and contiguous, on the CPU. Returns codes uint8 [O, C] and residuals e = (w - w_hat)/U_jj float32
    [O, C]; W_OC is overwritten.
    """
    codes_OC = torch.empty(W_OC.shape, dtype=torch.uint8)
    residuals_OC = torch.empty_like(W_OC)
    _solve_columns(
        W_OC.numpy(),
        U_CC.numpy(),
        scales_OC.numpy(),
        zeros_OC.numpy(),
        np.float32(top_code),
        codes_OC.numpy(),
        residuals_OC.numpy(),
    )
    return codes_OC, residuals_OC


def best_candidate(
    W_OGS: torch.Tensor, cost_GS: torch.Tensor, scales_OGK: torch.Tensor, zeros_OGK: torch.Tensor, top_code: int
) -> torch.Tensor:
    """Returns, per row and group, the index of the candidate with the least weighted squared difference, int64 [O, G].

    The first of equals wins. All float32 on the CPU; made contiguous where they are not.
    """
    best_OG = torch.empty(W_OGS.shape[:2], dtype=torch.int64)
    _best_candidate(
        W_OGS.contiguous().numpy(),
        cost_GS.contiguous().numpy(),
        scales_OGK.contiguous().numpy(),
        zeros_OGK.contiguous().numpy(),
        np.float32(top_code),
        best_OG.numpy(),
    )
    return best_OG


@numba.njit(parallel=True, cache=True, nogil=True)
def _solve_columns(
    W: Floats, U: Floats, scales: Floats, zeros: Floats, top: np.float32, codes: Codes, residuals: Floats
) -> None:
    rows, columns = W.shape
    for row in numba.prange(rows):
        for column in range(columns):
            weight = W[row, column]
            scale = scales[row, column]
            zero = zeros[row, column]
            code = np.rint(weight / scale) + zero
            code = min(max(code, np.float32(0.0)), top)
            residual = (weight - scale * (code - zero)) / U[column, column]
            codes[row, column] = np.uint8(code)
            residuals[row, column] = residual
            for later in range(column + 1, columns):
                W[row, later] -= residual * U[column, later]


@numba.njit(parallel=True, cache=True, nogil=True)
def _best_candidate(
    W: Floats, cost: Floats, scales: Floats, zeros: Floats, top: np.float32, best: npt.NDArray[np.int64]
) -> None:
    rows, groups, size = W.shape
    candidates = scales.shape[2]
    for row in numba.prange(rows):
        inverse = np.empty(candidates, dtype=np.float32)
        loss = np.empty(candidates, dtype=np.float32)
        for group in range(groups):
            for k in range(candidates):
                inverse[k] = np.float32(1.0) / scales[row, group, k]
                loss[k] = np.float32(0.0)
            for offset in range(size):
                weight = W[row, group, offset]
                price = cost[group, offset]
                for k in range(candidates):
                    zero = zeros[row, group, k]
                    code = (weight * inverse[k] + _ROUND) - _ROUND + zero
                    code = min(max(code, np.float32(0.0)), top)
                    difference = weight - scales[row, group, k] * (code - zero)
                    loss[k] += price * difference * difference
            winner = 0
            for k in range(1, candidates):
                if loss[k] < loss[winner]:
                    winner = k
            best[row, group] = winner
