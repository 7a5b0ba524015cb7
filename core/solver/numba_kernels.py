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
# Veltkamp's splitter: what is left of x·(2^13+1) has the 11 significant bits of a float16.
_HALF_SPLIT = np.float32(8193.0)
_HALF_NORMAL = np.float32(2.0**-14)
_HALF_STEP = np.float32(2.0**-24)
_HALF_MAX = np.float32(65504.0)


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

    G_OI = (W_hat - T) H on entry, kept true throughout. codes float32 [O, I] whole numbers; scales hold float16 values
    and keep their signs; members_GS: the inputs of each group, int64. All contiguous, on the CPU. A row that nothing
    improves any more is left before its last round.
    """
    _refine(
        G_OI.numpy(),
        H_II.numpy(),
        codes_OI.numpy(),
        scales_OG.numpy(),
        zeros_OG.numpy(),
        members_GS.numpy(),
        np.float32(top_code),
        rounds,
    )


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


@numba.njit(cache=True, nogil=True)
def _as_half(value: np.float32) -> np.float32:
    """Rounds to the nearest float16 value, subnormal ones too; what float16 cannot hold becomes 0."""
    if abs(value) < _HALF_NORMAL:
        return np.float32(np.rint(value / _HALF_STEP) * _HALF_STEP)
    split = value * _HALF_SPLIT
    rounded = split - (split - value)
    return rounded if abs(rounded) <= _HALF_MAX else np.float32(0.0)


@numba.njit(parallel=True, cache=True, nogil=True)
def _refine(  # noqa: PLR0913, PLR0917 - a kernel's operands
    G: Floats,
    H: Floats,
    codes: Floats,
    scales: Floats,
    zeros: Floats,
    members: npt.NDArray[np.int64],
    top: np.float32,
    rounds: int,
) -> None:
    for row in numba.prange(G.shape[0]):
        image = np.empty(G.shape[1], dtype=np.float32)
        for _ in range(rounds):
            moved = False
            for group in range(members.shape[0]):
                moved |= _refine_scale(G[row], H, codes[row], scales[row], zeros[row], members[group], group, image)
            for group in range(members.shape[0]):
                moved |= _refine_codes(G[row], H, codes[row], scales[row, group], members[group], top)
            if not moved:
                break


@numba.njit(cache=True, nogil=True)
def _refine_scale(  # noqa: PLR0913, PLR0917 - a kernel's operands
    gradient: Floats,
    H: Floats,
    codes: Floats,
    scales: Floats,
    zeros: Floats,
    members: npt.NDArray[np.int64],
    group: int,
    image: Floats,
) -> bool:
    """Moves one group's scale to its least-squares value; image is room for u H, u = codes - zero in the group."""
    image[:] = np.float32(0.0)
    for column in members:
        level = codes[column] - zeros[group]
        if level != 0:
            for other in range(image.shape[0]):
                image[other] += level * H[column, other]
    slope = np.float32(0.0)
    bend = np.float32(0.0)
    for column in members:
        level = codes[column] - zeros[group]
        slope += level * gradient[column]
        bend += level * image[column]
    if bend <= 0:
        return False
    scale = _as_half(scales[group] - slope / bend)
    step = scale - scales[group]
    if scale * scales[group] <= 0 or np.float32(2.0) * step * slope + step * step * bend >= 0:
        return False
    scales[group] = scale
    for other in range(image.shape[0]):
        gradient[other] += step * image[other]
    return True


@numba.njit(cache=True, nogil=True)
def _refine_codes(
    gradient: Floats,
    H: Floats,
    codes: Floats,
    scale: np.float32,
    members: npt.NDArray[np.int64],
    top: np.float32,
) -> bool:
    """Moves each code of a group to the best level on its own; a quadratic's best whole number is the nearest one."""
    moved = False
    for column in members:
        bend = H[column, column] * scale
        if bend == 0:
            continue
        code = min(max(codes[column] + np.rint(-gradient[column] / bend), np.float32(0.0)), top)
        step = scale * (code - codes[column])
        if step != 0:
            codes[column] = code
            for other in range(gradient.shape[0]):
                gradient[other] += step * H[column, other]
            moved = True
    return moved
