"""Products of a bfloat16 matrix with a float32 one that is rounded on the way, on the CPU's bfloat16 instruction.

They run at twice the rate of float32 products; sums are float32. The left side is read where it lies, two neighbours of
a row in a word; the right side is rounded and packed panel by panel, whatever its strides are. Each tile is summed by
one thread, from the first column to the last: the bytes do not hang on the number of threads.

Legend: I rows of the left side, J rows of the right, K columns of both: sums_IJ = left_IK · right_JKᵀ.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from numba import types

from core.kernels.arrays import VIEW, Floats, Words
from core.kernels.bfloat16 import rounded
from core.kernels.float32_tiles import ITEM_BYTES, PANEL, ROWS, copy_view, sum_tile
from core.kernels.halves import Half
from core.kernels.panels import columns_of_half, dealt, sum_tile_into

Four = tuple[int, int, int, int]

# Columns that are packed at a time, and rows of the left side between two packings, as in `numba_float32`.
DEPTH = 1536
HEIGHT = 2016
# Columns that are rounded at a time, in the nearest cache.
STRIP = 32
FEW_PANELS = 4
# Rows between two packings of a quadratic form, whatever the number of threads is.
FORM_ROWS = 1008
_LOWER, _UPPER = int(Half.LOWER), int(Half.UPPER)
# What stands for a symmetric matrix when it is taken twice: its lower half, with half of the diagonal.
_TWICE = -1


def multiply(
    sums_IJ: torch.Tensor, left_IK: torch.Tensor, right_JK: torch.Tensor, *, factor: float, adds: bool, half: Half
) -> None:
    """Writes, or adds, factor · left · rightᵀ.

    left: bfloat16, of an even number of columns. The others: float32 of any strides, the sums apart from the sides.
    half: what counts of a square right side.
    """
    _multiply(
        sums_IJ.numpy(),
        _words(left_IK),
        right_JK.numpy(),
        np.float32(factor),
        (int(adds), int(half)),
        numba.get_num_threads(),
    )


def quadratic_form(left_IK: torch.Tensor, rounded_IK: torch.Tensor, H_KK: torch.Tensor) -> float:
    """Returns the sum of what lies at the same places of left and rounded · H; H is symmetric, its lower half is read.

    rounded: the left side in bfloat16, of an even width. No product is written.
    """
    form = _quadratic_form(left_IK.contiguous().numpy(), _words(rounded_IK), H_KK.numpy(), numba.get_num_threads())
    return float(form)


def _words(rounded_IK: torch.Tensor) -> Words:
    """Returns each two neighbours of a row as one number, where they lie if that is possible."""
    if rounded_IK.stride(1) != 1 or rounded_IK.stride(0) % 2 or rounded_IK.storage_offset() % 2:
        rounded_IK = rounded_IK.contiguous()
    words: Words = rounded_IK.view(torch.int32).numpy().view(np.uint32)
    return words


@numba.njit(cache=True, nogil=True)
def _pack(right: Floats, half: int, place: Four, panel: Words) -> None:
    """Rounds some columns of some rows, an even number of them; what lies outside the half becomes 0.

    place: the first and behind the last row, the first and behind the last column.
    """
    first, last, start, stop = place
    strip = np.zeros((STRIP, PANEL), dtype=np.float32)
    for column in range(start, stop, STRIP):
        end = min(column + STRIP, stop)
        copy_view(right[first:last, column:end], strip[: end - column].T[: last - first])
        if (half == _UPPER and column < last) or (half in {_LOWER, _TWICE} and end > first):
            for inside in range(end - column):
                for lane in range(last - first):
                    beyond = column + inside - first - lane
                    if (beyond < 0) if half == _UPPER else (beyond > 0):
                        strip[inside, lane] = np.float32(0.0)
                    elif beyond == 0 and half == _TWICE:
                        strip[inside, lane] *= np.float32(0.5)
        for pair in range((end - column) // 2):
            words = panel[(column - start) // 2 + pair]
            for lane in range(PANEL):
                early, late = rounded(strip[2 * pair, lane]), rounded(strip[2 * pair + 1, lane])
                words[lane] = np.uint32(early) | (np.uint32(late) << np.uint32(16))


@numba.njit(cache=True, nogil=True)
def _multiply_panel(
    sums: Floats, sides: tuple[Words, Floats], place: Four, column: int, factor: np.float32, form: tuple[int, int]
) -> None:
    """Multiplies some columns of some rows with PANEL rows of the right side, from `column` on."""
    left, right = sides
    adds, half = form
    top, bottom, start, stop = place
    low, high = columns_of_half(half, column, PANEL, right.shape[1])
    begin, end = max(low, start), min(high, stop)
    if begin >= end or top >= bottom:
        return
    wide = min(PANEL, right.shape[0] - column)
    panel = np.empty(((end - begin) // 2, PANEL), dtype=np.uint32)
    _pack(right, half, (column, column + wide, begin, end), panel)
    tile = np.empty((ROWS, PANEL), dtype=np.float32)
    step = left.strides[0] // ITEM_BYTES
    begins = not adds and begin == low
    for row in range(top, bottom, ROWS):
        count = min(ROWS, bottom - row)
        places = (row * step + begin // 2, step, count, 0, (end - begin) // 2)
        sum_tile_into(sums, (left, panel), places, (row, column, wide), tile, factor, begins)


_KINDS: Any = types
_WORDS = _KINDS.Array(_KINDS.uint32, 2, "A")
_ROWS = _KINDS.Array(_KINDS.float32, 2, "C")


@numba.njit(  # type: ignore[untyped-decorator]  # its kinds are untyped
    _KINDS.void(VIEW, _WORDS, VIEW, _KINDS.float32, _KINDS.UniTuple(_KINDS.intp, 2), _KINDS.intp),
    parallel=True,
    cache=True,
    nogil=True,
)
def _multiply(
    sums: Floats, left: Words, right: Floats, factor: np.float32, form: tuple[int, int], threads: int
) -> None:
    rows, depth = sums.shape[0], right.shape[1]
    panels = (right.shape[0] + PANEL - 1) // PANEL
    # Few panels are shared by the threads, each of which packs them for its own rows.
    shares = threads if panels < FEW_PANELS * threads else 1
    turns = (panels * shares + threads - 1) // threads
    for top in range(0, rows, HEIGHT):
        bottom = min(top + HEIGHT, rows)
        height = ((bottom - top + shares - 1) // shares + ROWS - 1) // ROWS * ROWS
        for start in range(0, depth, DEPTH):
            for number in numba.prange(turns * threads):
                unit = dealt(int(np.intp(number)), turns, threads)
                panel = unit // shares
                above = min((unit + panel) % shares * height, bottom - top)
                if panel < panels:
                    place = (top + above, min(top + above + height, bottom), start, min(start + DEPTH, depth))
                    _multiply_panel(sums, (left, right), place, panel * PANEL, factor, form)


@numba.njit(cache=True, nogil=True)
def _panel_form(left: Floats, words: Words, right: Floats, place: Four) -> float:
    """Returns what PANEL columns of the lower half, from place's third number on, add for some rows."""
    top, bottom, column, wide = place
    tile, sums = np.empty((ROWS, PANEL), dtype=np.float32), np.zeros(PANEL, dtype=np.float32)
    step, depth = words.strides[0] // ITEM_BYTES, column + wide
    begins, total = True, 0.0
    for start in range(0, depth, DEPTH):
        stop = min(start + DEPTH, depth)
        panel = np.empty(((stop - start) // 2, PANEL), dtype=np.uint32)
        _pack(right, _TWICE, (column, column + wide, start, stop), panel)
        for row in range(top, bottom, ROWS):
            count = min(ROWS, bottom - row)
            places = (row * step + start // 2, step, count, 0, (stop - start) // 2, 0, PANEL)
            sum_tile(words, panel, tile, places, np.float32(2.0), begins)
            for inside in range(count):
                line, own = left[row + inside, column : column + wide], tile[inside]
                for lane in range(line.shape[0]):
                    sums[lane] += line[lane] * own[lane]
        for lane in range(wide):
            total += sums[lane]
            sums[lane] = np.float32(0.0)
    return total


@numba.njit(  # type: ignore[untyped-decorator]  # its kinds are untyped
    _KINDS.float64(_ROWS, _WORDS, VIEW, _KINDS.intp), parallel=True, cache=True, nogil=True
)
def _quadratic_form(left: Floats, words: Words, right: Floats, threads: int) -> float:
    rows, width = left.shape
    panels = (width + PANEL - 1) // PANEL
    units = panels * ((rows + FORM_ROWS - 1) // FORM_ROWS)
    turns = (units + threads - 1) // threads
    parts = np.zeros(units, dtype=np.float64)
    for number in numba.prange(turns * threads):
        unit = dealt(int(np.intp(number)), turns, threads)
        if unit < units:
            top, column = unit // panels * FORM_ROWS, unit % panels * PANEL
            place = (top, min(top + FORM_ROWS, rows), column, min(PANEL, width - column))
            parts[unit] = _panel_form(left, words, right, place)
    total = 0.0
    for unit in range(units):
        total += parts[unit]
    return total
