"""The loops that torch cannot fuse, compiled for the CPU by Numba: column solve, scale search and refinement.

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


def refine_codes(
    G_OC: torch.Tensor, H_CC: torch.Tensor, codes_OC: torch.Tensor, scales_O: torch.Tensor, top_code: int
) -> torch.Tensor:
    """Moves each code in turn to the level with the least (w_hat - t) H (w_hat - t)ᵀ, the others fixed, in place.

    G_OC = (W_hat - T) H on entry and at every move; overwritten. codes float32 [O, C] whole numbers. All contiguous, on
    the CPU. Returns what the moves added to the weights, float32 [O, C].
    """
    moves_OC = torch.empty_like(codes_OC)
    _refine_codes(
        G_OC.numpy(), H_CC.numpy(), codes_OC.numpy(), scales_O.numpy(), np.float32(top_code), moves_OC.numpy()
    )
    return moves_OC


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


@numba.njit(parallel=True, cache=True, nogil=True)
def _refine_codes(G: Floats, H: Floats, codes: Floats, scales: Floats, top: np.float32, moves: Floats) -> None:
    for row in numba.prange(G.shape[0]):
        for column in range(G.shape[1]):
            moves[row, column] = np.float32(0.0)
            bend = H[column, column] * scales[row]
            if bend == 0:
                continue
            # A quadratic's best whole number is the one nearest to its least value.
            code = min(max(codes[row, column] + np.rint(-G[row, column] / bend), np.float32(0.0)), top)
            step = scales[row] * (code - codes[row, column])
            if step != 0:
                codes[row, column] = code
                moves[row, column] = step
                for later in range(column + 1, G.shape[1]):
                    G[row, later] += step * H[column, later]
