"""What float32 and rounded products share: who takes which panel, which columns of it, and where a tile goes."""

from __future__ import annotations

import numba
import numpy as np

from core.kernels.arrays import Floats, Numbers
from core.kernels.float32_tiles import ITEM_BYTES, PANEL, ROWS, sum_tile
from core.kernels.halves import Half

_LOWER, _UPPER = int(Half.LOWER), int(Half.UPPER)


@numba.njit(cache=True, nogil=True)
def columns_of_half(half: int, first: int, count: int, depth: int) -> tuple[int, int]:
    """Returns which columns of some rows are not all outside the half that takes part."""
    if half == _LOWER:
        return 0, min(first + count, depth)
    if half == _UPPER:
        return min(first, depth), depth
    return 0, depth


@numba.njit(cache=True, nogil=True)
def sum_tile_into(
    sums: Floats,
    sides: tuple[Numbers, Numbers],
    places: tuple[int, int, int, int, int],
    corner: tuple[int, int, int],
    tile: Floats,
    factor: np.float32,
    begins: bool,  # noqa: FBT001 - a kernel's flag
) -> None:
    """Writes or adds a tile where it belongs in the sums, of which it may hold fewer rows and columns.

    sides: the left one and a panel. places: the first five of `sum_tile`. corner: the tile's first row, its first
    column and how many columns the sums have there. tile: memory for one that is not whole.
    """
    row, column, wide = corner
    at, step, count, right_at, depth = places
    whole = count == ROWS and wide == PANEL and sums.strides[1] == ITEM_BYTES
    target = sums if whole else tile
    target_step = target.strides[0] // ITEM_BYTES
    target_at = row * target_step + column if whole else 0
    placed = (at, step, count, right_at, depth, target_at, target_step)
    sum_tile(sides[0], sides[1], target, placed, factor, begins or not whole)
    if not whole:
        for inside in range(count):
            for lane in range(wide):
                before = np.float32(0.0) if begins else sums[row + inside, column + lane]
                sums[row + inside, column + lane] = before + tile[inside, lane]


@numba.njit(cache=True, nogil=True)
def dealt(number: int, turns: int, threads: int) -> int:
    """Returns the unit of work with that number when each thread gets every so manieth one.

    What neighbours have to do grows or shrinks along a triangle: so each thread takes some of either end.
    """
    return number % turns * threads + number // turns
