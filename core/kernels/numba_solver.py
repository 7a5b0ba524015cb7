"""The loops that torch cannot fuse, compiled for the CPU by Numba: column solve and searches.

Each has a plain torch twin in `core.solver.reference`, the oracle of the tests. Rows are independent, so the outer loop
is parallel and the result does not hang on the number of threads. Columns wait for one another, so it is rows that lie
side by side in the lanes of vectors. Inner loops run over contiguous lanes without any reduction of sums: they
vectorize without reassociating, so the bytes are the same at every vector width.

Legend: O out_features, C columns of one update, G groups, S inputs in a group, K candidates.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
import torch

from core.kernels.arrays import ROUND, Floats
from core.kernels.float32_tiles import copy_view

Codes = npt.NDArray[np.uint8]

# Rows that are solved side by side. Few enough for four arrays of an update in the second-level cache, and so many that
# the compiler keeps the loop over them, which it vectorizes; one vector's worth it unrolls into scalars.
LANES = 64


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
    W_OGS: torch.Tensor, cost_GS: torch.Tensor, scales_OGK: torch.Tensor, zero: int, top_code: int
) -> torch.Tensor:
    """Returns, per row and group, the index of the scale with the least weighted squared difference, int64 [O, G].

    The first of equals wins. All float32 on the CPU; made contiguous where they are not.
    """
    best_OG = torch.empty(W_OGS.shape[:2], dtype=torch.int64)
    _best_candidate(
        W_OGS.contiguous().numpy(),
        cost_GS.contiguous().numpy(),
        scales_OGK.contiguous().numpy(),
        np.float32(-zero),
        np.float32(top_code - zero),
        best_OG.numpy(),
    )
    return best_OG


def best_scale_and_zero(
    W_OGS: torch.Tensor, cost_GS: torch.Tensor, scales_OGK: torch.Tensor, zeros_OG: torch.Tensor, top_code: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns, per row and group, the scale's index, int64 [O, G], and the zero, float32 [O, G], of the least loss.

    Every whole zero from 0 to top_code counts, for each of the positive scales; zeros_OG is where the walk starts. All
    float32 on the CPU; made contiguous where they are not.
    """
    best_OG = torch.empty(W_OGS.shape[:2], dtype=torch.int64)
    found_OG = zeros_OG.clone(memory_format=torch.contiguous_format)
    _best_scale_and_zero(
        W_OGS.contiguous().numpy(),
        cost_GS.contiguous().numpy(),
        scales_OGK.contiguous().numpy(),
        np.float32(top_code),
        best_OG.numpy(),
        found_OG.numpy(),
    )
    return best_OG, found_OG


@numba.njit(parallel=True, cache=True, nogil=True)
def _solve_columns(
    W: Floats, U: Floats, scales: Floats, zeros: Floats, top: np.float32, codes: Codes, residuals: Floats
) -> None:
    rows, columns = W.shape
    for tile in numba.prange((rows + LANES - 1) // LANES):
        first = int(np.intp(tile)) * LANES
        count = min(LANES, rows - first)
        live = np.zeros((columns, LANES), dtype=np.float32)
        scale = np.ones((columns, LANES), dtype=np.float32)
        zero = np.zeros((columns, LANES), dtype=np.float32)
        code = np.empty((columns, LANES), dtype=np.float32)
        residual = np.empty(LANES, dtype=np.float32)
        copy_view(W[first : first + count], live.T[:count])
        copy_view(scales[first : first + count], scale.T[:count])
        copy_view(zeros[first : first + count], zero.T[:count])
        for column in range(columns):
            pivot = U[column, column]
            for lane in range(LANES):
                weight = live[column, lane]
                level = (weight / scale[column, lane] + ROUND) - ROUND + zero[column, lane]
                level = min(max(level, np.float32(0.0)), top)
                code[column, lane] = level
                residual[lane] = (weight - scale[column, lane] * (level - zero[column, lane])) / pivot
                live[column, lane] = residual[lane]
            for later in range(column + 1, columns):
                factor = U[column, later]
                for lane in range(LANES):
                    live[later, lane] -= residual[lane] * factor
        copy_view(live.T[:count], residuals[first : first + count])
        for lane in range(count):
            for column in range(columns):
                codes[first + lane, column] = np.uint8(code[column, lane])


@numba.njit(parallel=True, cache=True, nogil=True)
def _best_candidate(
    W: Floats, cost: Floats, scales: Floats, low: np.float32, high: np.float32, best: npt.NDArray[np.int64]
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
                    level = min(max((weight * inverse[k] + ROUND) - ROUND, low), high)
                    difference = weight - scales[row, group, k] * level
                    loss[k] += price * difference * difference
            winner = 0
            for k in range(1, candidates):
                if loss[k] < loss[winner]:
                    winner = k
            best[row, group] = winner


@numba.njit(parallel=True, cache=True, nogil=True)
def _best_scale_and_zero(
    W: Floats, cost: Floats, scales: Floats, top: np.float32, best: npt.NDArray[np.int64], zeros: Floats
) -> None:
    rows, groups = W.shape[:2]
    lanes = scales.shape[2]
    for row in numba.prange(rows):
        scale = np.empty(lanes, dtype=np.float32)
        inverse = np.empty(lanes, dtype=np.float32)
        zero = np.empty(lanes, dtype=np.float32)
        losses = np.empty((3, lanes), dtype=np.float32)
        lane = np.empty(lanes, dtype=np.int64)
        for group in range(groups):
            for k in range(lanes):
                scale[k] = scales[row, group, k]
                inverse[k] = np.float32(1.0) / scale[k]
                zero[k] = zeros[row, group]
                lane[k] = k
            live = lanes
            least = np.float32(np.inf)
            while live > 0:
                _losses_about(W[row, group], cost[group], scale[:live], inverse[:live], zero[:live], top, losses)
                left = 0
                for k in range(live):
                    if losses[1, k] < least:
                        least = losses[1, k]
                        best[row, group] = lane[k]
                        zeros[row, group] = zero[k]
                    step = np.float32(0.0)
                    if zero[k] < top and losses[2, k] < losses[1, k]:
                        step = np.float32(1.0)
                    elif zero[k] > 0 and losses[0, k] < losses[1, k]:
                        step = np.float32(-1.0)
                    if step != 0:
                        scale[left], inverse[left], lane[left] = scale[k], inverse[k], lane[k]
                        zero[left] = zero[k] + step
                        left += 1
                live = left


@numba.njit(cache=True, nogil=True)
def _losses_about(
    W: Floats, cost: Floats, scale: Floats, inverse: Floats, zero: Floats, top: np.float32, losses: Floats
) -> None:
    """Writes a group's weighted loss on each lane's grid with the zero one lower, as it is, and one higher."""
    one = np.float32(1.0)
    losses[:, : scale.shape[0]] = np.float32(0.0)
    for offset in range(W.shape[0]):
        weight = W[offset]
        price = cost[offset]
        for k in range(scale.shape[0]):
            level = (weight * inverse[k] + ROUND) - ROUND
            low = -zero[k]
            high = low + top
            below = weight - scale[k] * min(max(level, low + one), high + one)
            here = weight - scale[k] * min(max(level, low), high)
            above = weight - scale[k] * min(max(level, low - one), high - one)
            losses[0, k] += price * below * below
            losses[1, k] += price * here * here
            losses[2, k] += price * above * above
