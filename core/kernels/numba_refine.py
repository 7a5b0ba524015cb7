"""The inner loops of `core.solver.refine`, compiled for the CPU by Numba; their twins are in `core.solver.reference`.

As in `numba_solver` rows are independent and lie side by side in the lanes of vectors, and no sum is reassociated. All
work on views as they lie, whatever their strides are, so that nothing is copied before or after.

Legend: O out_features, S inputs in a group, C columns of one update.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from numba import types

from core.kernels.arrays import ROUND, VIEW, Floats
from core.kernels.bfloat16 import as_float16
from core.kernels.columns import RefinedColumns
from core.kernels.float32_tiles import copy_view
from core.kernels.numba_solver import LANES

Flags = npt.NDArray[np.bool_]

# Columns that are laid into lanes at a time where nothing is kept of them.
TURN = 16

_KINDS: Any = types
_ROW = _KINDS.Array(_KINDS.float32, 1, "A")
_FLAGS = _KINDS.Array(_KINDS.boolean, 1, "A")


def step_scales(columns: RefinedColumns, gradient_OS: torch.Tensor, image_OS: torch.Tensor) -> torch.Tensor:
    """See `core.solver.kernels.step_scales`."""
    step_O = gradient_OS.new_empty(gradient_OS.shape[0])
    _step_scales(
        (columns.codes_OC.numpy(), gradient_OS.numpy(), image_OS.numpy()),
        (columns.zeros_O.numpy(), columns.scales_O.numpy(), step_O.numpy()),
    )
    return step_O


def refine_codes(
    columns: RefinedColumns,
    gradient_OC: torch.Tensor,
    image_OC: torch.Tensor,
    step_O: torch.Tensor,
    H_CC: torch.Tensor,
    top_code: int,
) -> torch.Tensor:
    """See `core.solver.kernels.refine_codes`."""
    moves_OC = torch.empty_like(gradient_OC)
    _refine_codes(
        (columns.codes_OC.numpy(), columns.difference_OC.numpy(), gradient_OC.numpy(), image_OC.numpy(), H_CC.numpy()),
        (columns.zeros_O.numpy(), columns.scales_O.numpy(), step_O.numpy()),
        np.float32(top_code),
        columns.moved_O.numpy(),
        moves_OC.numpy(),
    )
    return moves_OC


@numba.njit(cache=True, nogil=True)
def _least_squares_step(scale: np.float32, slope: np.float32, bend: np.float32) -> np.float32:
    """Returns what takes a scale to its least-squares value, 0 where that is no gain."""
    if not bend > 0:
        return np.float32(0.0)
    wanted = as_float16(scale - slope / bend)
    step = wanted - scale
    gains = np.float32(2.0) * step * slope + step * step * bend < 0
    return step if gains and np.isfinite(wanted) and wanted * scale > 0 else np.float32(0.0)


@numba.njit(  # type: ignore[untyped-decorator]  # its kinds are untyped
    _KINDS.void(_KINDS.UniTuple(VIEW, 3), _KINDS.UniTuple(_ROW, 3)), parallel=True, cache=True, nogil=True
)
def _step_scales(views: tuple[Floats, Floats, Floats], each_row: tuple[Floats, Floats, Floats]) -> None:
    codes, gradients, images = views
    zeros, scales, steps = each_row
    rows, columns = codes.shape
    for number in numba.prange((rows + LANES - 1) // LANES):
        first = int(np.intp(number)) * LANES
        last = min(first + LANES, rows)
        lanes, sums = np.zeros((3, TURN, LANES), dtype=np.float32), np.zeros((3, LANES), dtype=np.float32)
        code, gradient, image = lanes[0], lanes[1], lanes[2]
        zero, slope, bend = sums[0], sums[1], sums[2]
        zero[: last - first] = zeros[first:last]
        for start in range(0, columns, TURN):
            stop = min(start + TURN, columns)
            copy_view(codes[first:last, start:stop], code[: stop - start].T[: last - first])
            copy_view(gradients[first:last, start:stop], gradient[: stop - start].T[: last - first])
            copy_view(images[first:last, start:stop], image[: stop - start].T[: last - first])
            for column in range(stop - start):
                for lane in range(LANES):
                    level = code[column, lane] - zero[lane]
                    slope[lane] += level * gradient[column, lane]
                    bend[lane] += level * image[column, lane]
        for row in range(first, last):
            steps[row] = _least_squares_step(scales[row], slope[row - first], bend[row - first])
            scales[row] += steps[row]


@numba.njit(cache=True, nogil=True)
def _move_codes(H: Floats, scale: Floats, top: np.float32, code: Floats, gradient: Floats) -> None:
    """Moves the codes of rows side by side; a column's gradient gives way to what its move adds to its weights."""
    columns = code.shape[0]
    step = np.empty(LANES, dtype=np.float32)
    for column in range(columns):
        curvature = H[column, column]
        moved = np.float32(0.0)
        for lane in range(LANES):
            # A quadratic's best whole number is the one nearest to its least value.
            bend = curvature * scale[lane]
            wanted = (-gradient[column, lane] / bend + ROUND) - ROUND if bend != 0 else np.float32(0.0)
            level = min(max(code[column, lane] + wanted, np.float32(0.0)), top)
            step[lane] = scale[lane] * (level - code[column, lane])
            code[column, lane] = level
            gradient[column, lane] = step[lane]
            moved = max(moved, abs(step[lane]))
        if moved != 0:
            for later in range(column + 1, columns):
                factor = H[column, later]
                for lane in range(LANES):
                    gradient[later, lane] += step[lane] * factor


@numba.njit(  # type: ignore[untyped-decorator]  # its kinds are untyped
    _KINDS.void(_KINDS.UniTuple(VIEW, 5), _KINDS.UniTuple(_ROW, 3), _KINDS.float32, _FLAGS, VIEW),
    parallel=True,
    cache=True,
    nogil=True,
)
def _refine_codes(
    views: tuple[Floats, Floats, Floats, Floats, Floats],
    each_row: tuple[Floats, Floats, Floats],
    top: np.float32,
    moved: Flags,
    moves: Floats,
) -> None:
    codes, differences, gradients, images, H = views
    zeros, scales, steps = each_row
    rows, columns = codes.shape
    for number in numba.prange((rows + LANES - 1) // LANES):
        first = int(np.intp(number)) * LANES
        count = min(LANES, rows - first)
        last = first + count
        lanes = np.zeros((4, columns, LANES), dtype=np.float32)
        code, gradient, image, difference = lanes[0], lanes[1], lanes[2], lanes[3]
        zero = np.zeros(LANES, dtype=np.float32)
        step = np.zeros(LANES, dtype=np.float32)
        scale = np.ones(LANES, dtype=np.float32)
        zero[:count] = zeros[first:last]
        step[:count] = steps[first:last]
        scale[:count] = scales[first:last]
        copy_view(codes[first:last], code.T[:count])
        copy_view(gradients[first:last], gradient.T[:count])
        copy_view(images[first:last], image.T[:count])
        copy_view(differences[first:last], difference.T[:count])
        for column in range(columns):
            for lane in range(LANES):
                gradient[column, lane] += step[lane] * image[column, lane]
                difference[column, lane] += step[lane] * (code[column, lane] - zero[lane])
        _move_codes(H, scale, top, code, gradient)
        changed = np.abs(step)
        for column in range(columns):
            for lane in range(LANES):
                difference[column, lane] += gradient[column, lane]
                changed[lane] = max(changed[lane], abs(gradient[column, lane]))
        copy_view(code.T[:count], codes[first:last])
        copy_view(gradient.T[:count], moves[first:last])
        copy_view(difference.T[:count], differences[first:last])
        for lane in range(count):
            moved[first + lane] |= changed[lane] != 0
