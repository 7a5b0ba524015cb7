"""Sums of products AᵀB over tokens on the CPU's bfloat16 dot-product instruction: bfloat16 in, float32 sums out.

torch multiplies bfloat16 at this rate too, but rounds what comes out; and it has no triangle. Two tokens of one input
lie beside each other in a word (see `tiles`), and inputs in panels of PANEL, so that both sides of a tile are read from
front to back. Each tile is summed by one thread in the order of tokens: the bytes do not hang on the number of threads.

Legend: N tokens, I inputs of the left side, J of the right, P panels, T pairs of tokens.
"""

from __future__ import annotations

import numba
import numpy as np
import torch

from core.kernels.arrays import Floats, Words
from core.kernels.bfloat16 import Bfloats, bits_of
from core.kernels.tiles import PANEL, ROWS, tile_rows

# Tokens that are summed in one register: two panels of them fit the second-level cache, and float32 keeps its digits.
CHUNK_TOKENS = 1024
# Of both numbers in a word: what is no sign, what takes 2^100 to the sign's place, and that place.
_SIZES = np.uint32(0x7FFF_7FFF)
_UP_TO_LARGE = np.uint32(0x0E80_0E80)
_CARRIES = np.uint32(0x8000_8000)


def packed_words(tokens: int, width: int) -> int:
    """Returns the number of words that so many rows are packed into."""
    return -(-width // PANEL) * ((tokens + 1) // 2) * PANEL


def pack(X_NI: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """Returns bfloat16 rows as words of two tokens in panels of inputs, int32 [P, T, PANEL]; what is missing is 0.

    memory: int32, `packed_words` of them at least, where they are written. Also returns whether all numbers are below
    2^100: then they are finite, and so is the sum of any row.
    """
    tokens, width = X_NI.shape
    words_PTW = memory[: packed_words(tokens, width)].view(-(-width // PANEL), (tokens + 1) // 2, PANEL)
    large_P = _pack(bits_of(X_NI.contiguous()), words_PTW.numpy().view(np.uint32))
    return words_PTW, not large_P.any()


def add_products(sum_IJ: torch.Tensor, left: torch.Tensor, right: torch.Tensor, *, upper: bool) -> None:
    """Adds AᵀB to a float32 matrix; left and right are A and B as packed, of the same tokens.

    upper: A is B, and of the tiles below the diagonal none is computed.
    """
    _add_products(sum_IJ.numpy(), left.numpy().view(np.uint32), right.numpy().view(np.uint32), upper)


@numba.njit(parallel=True, cache=True, nogil=True)
def _pack(X: Bfloats, words: Words) -> Words:
    """Returns, per panel, a number other than 0 where it holds a large one."""
    rows, width = X.shape
    panels, pairs, _ = words.shape
    large = np.zeros(panels, dtype=np.uint32)
    for number in numba.prange(panels):
        panel = int(np.intp(number))
        first = panel * PANEL
        used = min(PANEL, width - first)
        seen = np.zeros(PANEL, dtype=np.uint32)
        ends = np.zeros((2, PANEL), dtype=np.uint16)
        for pair in range(pairs):
            row = 2 * pair
            if used == PANEL and row + 1 < rows:
                early, late = X[row, first : first + PANEL], X[row + 1, first : first + PANEL]
                _pack_pair(early, late, words[panel, pair], seen)
                continue
            ends[1] = 0
            for end in range(min(2, rows - row)):
                ends[end, :used] = X[row + end, first : first + used]
            _pack_pair(ends[0], ends[1], words[panel, pair], seen)
        large[panel] = seen.max()
    return large


@numba.njit(cache=True, nogil=True)
def _pack_pair(early: Bfloats, late: Bfloats, words: Words, large: Words) -> None:
    """Of a panel, whose width the compiler knows; that takes half the time of any width."""
    for lane in range(PANEL):
        word = np.uint32(early[lane]) | (np.uint32(late[lane]) << np.uint32(16))
        words[lane] = word
        large[lane] |= ((word & _SIZES) + _UP_TO_LARGE) & _CARRIES


@numba.njit(parallel=True, cache=True, nogil=True)
def _add_products(sums: Floats, left: Words, right: Words, upper: bool) -> None:  # noqa: FBT001 - a kernel's flag
    panels, pairs, size = left.shape
    others = right.shape[0]
    tiles = panels * (panels + 1) // 2 if upper else panels * others
    left_words, right_words = left.reshape(-1), right.reshape(-1)
    for number in numba.prange(tiles):
        i, j = _tile_place(int(np.intp(number)), panels, others, upper)
        tile = np.empty(ROWS * size, dtype=np.float32)
        columns = min(size, sums.shape[1] - j * size)
        for row in range(0, min(size, sums.shape[0] - i * size), ROWS):
            tile_rows(left_words, i * pairs * size + row, 1, size, right_words, j * pairs * size, pairs, tile, 0, None)
            for inside in range(min(ROWS, sums.shape[0] - i * size - row)):
                for column in range(columns):
                    sums[i * size + row + inside, j * size + column] += tile[inside * size + column]


@numba.njit(cache=True, nogil=True)
def _tile_place(number: int, panels: int, others: int, upper: bool) -> tuple[int, int]:  # noqa: FBT001 - a kernel's flag
    """Returns row and column of a tile; the upper ones are counted row by row from the diagonal on."""
    if not upper:
        return number // others, number % others
    row = 0
    while number >= panels - row:
        number -= panels - row
        row += 1
    return row, row + number
