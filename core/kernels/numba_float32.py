"""Float32 products on the CPU's widest vectors, of views as they lie and of triangles without their other half.

The libraries that torch brings copy a view before they multiply it, know no triangles, and one of them runs at half
the rate on processors of some makers. Here the right side is packed, whatever its strides are, in panels that stay in
the second-level cache; the left side is read where it lies, or packed as well. Each tile is summed by one thread, from
the first column to the last: the bytes do not hang on the number of threads.

Legend: I rows of the left side, J rows of the right, K columns of both: sums_IJ = left_IK · right_JKᵀ.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from numba import types

from core.kernels.arrays import VIEW, Floats
from core.kernels.float32_tiles import ITEM_BYTES, PANEL, ROWS, copy_view
from core.kernels.halves import Half, Halves
from core.kernels.panels import columns_of_half, dealt, sum_tile_into

Four = tuple[int, int, int, int]
# The left side, its packed form, the right side.
Sides = tuple[Floats, Floats, Floats]

# Columns that are packed at a time: a panel of the right side stays in the second-level cache.
DEPTH = 768
# Rows of the left side that are packed at a time, which stay in the third-level cache, and by one thread.
HEIGHT = 2016
STRIP = 48
FEW_PANELS = 4
_ALL, _LOWER, _UPPER = int(Half.ALL), int(Half.LOWER), int(Half.UPPER)


def multiply(
    sums_IJ: torch.Tensor,
    left_IK: torch.Tensor,
    right_JK: torch.Tensor,
    *,
    factor: float,
    adds: bool,
    halves: Halves,
) -> None:
    """Writes, or adds, factor · left · rightᵀ; float32 on the CPU, of any strides, the sums apart from the sides."""
    _multiply(
        sums_IJ.numpy(),
        left_IK.numpy(),
        right_JK.numpy(),
        np.float32(factor),
        (int(adds), int(halves.wanted), int(halves.left), int(halves.right)),
        numba.get_num_threads(),
    )


@numba.njit(cache=True, nogil=True)
def _pack(side: Floats, half: int, place: Four, packed: Floats) -> None:
    """Writes some columns of some rows as if the other half were 0.

    place: the first and behind the last row, the first and behind the last column.
    """
    first, last, start, stop = place
    copy_view(side[first:last, start:stop], packed)
    if half != _ALL:
        for row in range(first, last):
            outside = (max(start, row + 1), stop) if half == _LOWER else (start, min(stop, row))
            for column in range(outside[0], outside[1]):
                packed[row - first, column - start] = np.float32(0.0)


@numba.njit(cache=True, nogil=True)
def _lies_ready(left: Floats, half: int) -> bool:
    return bool(left.strides[1] == ITEM_BYTES and half == _ALL)


@numba.njit(cache=True, nogil=True)
def _multiply_panel(sums: Floats, sides: Sides, place: Four, column: int, factor: np.float32, form: Four) -> None:
    """Multiplies some columns of some rows with PANEL rows of the right side, from `column` on."""
    left, _, right = sides
    _, wanted, _, right_half = form
    top, bottom, start, stop = place
    low, high = columns_of_half(right_half, column, PANEL, left.shape[1])
    begin, end = max(low, start), min(high, stop)
    if begin >= end:
        return
    wide = min(PANEL, right.shape[0] - column)
    panel = np.empty((end - begin, PANEL), dtype=np.float32)
    _pack(right, right_half, (column, column + wide, begin, end), panel.T[:wide])
    tile = np.empty((ROWS, PANEL), dtype=np.float32)
    first = top + max(0, column - top) // ROWS * ROWS if wanted == _LOWER else top
    last = min(bottom, column + wide) if wanted == _UPPER else bottom
    for row in range(first, last, ROWS):
        lines = (row, min(ROWS, bottom - row), row - top, start)
        _multiply_rows(sums, sides, lines, (panel, tile), (column, wide, low, begin, end), factor, form)


@numba.njit(cache=True, nogil=True)
def _multiply_rows(
    sums: Floats,
    sides: Sides,
    lines: Four,
    own: tuple[Floats, Floats],
    columns: tuple[int, int, int, int, int],
    factor: np.float32,
    form: Four,
) -> None:
    """Multiplies some columns of ROWS rows with a panel.

    lines: the first row, how many there are, where the packed form has it, and which column it begins with. own: the
    panel, and memory for a tile. columns: the first of the sums and how many, the first that the right side has, the
    first and behind the last of those in the panel.
    """
    left, packed, _ = sides
    panel, tile = own
    row, count, packed_row, packed_column = lines
    column, wide, right_low, begin, end = columns
    left_low, left_high = columns_of_half(form[2], row, count, left.shape[1])
    since, until = max(left_low, begin), min(left_high, end)
    if since >= until:
        return
    ready = _lies_ready(left, form[2])
    source = left if ready else packed
    step = source.strides[0] // ITEM_BYTES
    at = row * step + since if ready else packed_row * step + since - packed_column
    begins = not form[0] and since == max(left_low, right_low)
    places = (at, step, count, (since - begin) * PANEL, until - since)
    sum_tile_into(sums, (source, panel), places, (row, column, wide), tile, factor, begins)


_KINDS: Any = types


@numba.njit(  # type: ignore[untyped-decorator]  # its kinds are untyped
    _KINDS.void(VIEW, VIEW, VIEW, _KINDS.float32, _KINDS.UniTuple(_KINDS.intp, 4), _KINDS.intp),
    parallel=True,
    cache=True,
    nogil=True,
)
def _multiply(sums: Floats, left: Floats, right: Floats, factor: np.float32, form: Four, threads: int) -> None:
    rows, depth = left.shape
    panels = (right.shape[0] + PANEL - 1) // PANEL
    # Few panels are shared by the threads, each of which packs them for its own rows.
    shares = threads if panels < FEW_PANELS * threads else 1
    turns = (panels * shares + threads - 1) // threads
    ready = _lies_ready(left, form[2])
    packed = np.empty((0 if ready else min(HEIGHT, rows), min(DEPTH, depth)), dtype=np.float32)
    for top in range(0, rows, HEIGHT):
        bottom = min(top + HEIGHT, rows)
        height = ((bottom - top + shares - 1) // shares + ROWS - 1) // ROWS * ROWS
        for start in range(0, depth, DEPTH):
            stop = min(start + DEPTH, depth)
            if not ready:
                for number in numba.prange((bottom - top + STRIP - 1) // STRIP):
                    first = top + int(np.intp(number)) * STRIP
                    last = min(first + STRIP, bottom)
                    low, high = columns_of_half(form[2], first, last - first, depth)
                    low, high = max(low, start), min(high, stop)
                    if low < high:
                        lines = packed[first - top : last - top, low - start : high - start]
                        _pack(left, form[2], (first, last, low, high), lines)
            for number in numba.prange(turns * threads):
                unit = dealt(int(np.intp(number)), turns, threads)
                panel = unit // shares
                above = min((unit + panel) % shares * height, bottom - top)
                if panel < panels:
                    place = (top + above, min(top + above + height, bottom), start, stop)
                    _multiply_panel(sums, (left, packed[above:], right), place, panel * PANEL, factor, form)
