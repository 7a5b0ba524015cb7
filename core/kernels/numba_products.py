"""Sums of products AᵀB over tokens on the CPU's bfloat16 dot-product instruction: bfloat16 in, float32 sums out.

torch multiplies bfloat16 at this rate too, but rounds what comes out; and it has no triangle. The instruction takes
pairs: acc += a₀b₀ + a₁b₁ in each of 16 lanes. Two tokens of one input therefore lie beside each other in a 32-bit word,
and inputs in panels of PANEL, so that both sides of a tile are read from front to back. Each tile is summed by one
thread in the order of tokens: the bytes do not hang on the number of threads.

Legend: N tokens, I inputs of the left side, J of the right, P panels, T pairs of tokens.
"""

# ruff: noqa: ANN401 - types and values of numba and llvmlite have no static types

from __future__ import annotations

from functools import cache
from typing import Any

import llvmlite.binding
import numba
import numpy as np
import numpy.typing as npt
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from core.kernels.bfloat16 import Halves, halves

Words = npt.NDArray[np.uint32]
Floats = npt.NDArray[np.float32]

LANES = 16
ROWS = 8
VECTORS = 3
# ROWS x VECTORS sums, VECTORS operands and one broadcast fill the 32 vector registers but four.
PANEL = LANES * VECTORS
# Tokens that are summed in one register: two panels of them fit the second-level cache, and float32 keeps its digits.
CHUNK_TOKENS = 1024
_INSTRUCTION = "llvm.x86.avx512bf16.dpbf16ps.512"


@cache  # asking LLVM takes as long as a small product
def is_available() -> bool:
    """Whether this CPU has the instruction and Numba compiles for this CPU."""
    other_target = numba.config.CPU_NAME  # type: ignore[attr-defined]  # numba sets it from its variables
    return other_target is None and bool(llvmlite.binding.get_host_cpu_features().get("avx512bf16"))


def packed_words(tokens: int, width: int) -> int:
    """Returns the number of words that so many rows are packed into."""
    return -(-width // PANEL) * ((tokens + 1) // 2) * PANEL


def pack(X_NI: torch.Tensor, memory: torch.Tensor | None = None) -> torch.Tensor:
    """Returns bfloat16 rows as words of two tokens in panels of inputs, int32 [P, T, PANEL]; what is missing is 0.

    memory: int32, `packed_words` of them at least, where they are written; by default new memory.
    """
    tokens, width = X_NI.shape
    words = packed_words(tokens, width)
    memory = torch.empty(words, dtype=torch.int32) if memory is None else memory
    words_PTW = memory[:words].view(-(-width // PANEL), (tokens + 1) // 2, PANEL)
    _pack(halves(X_NI.contiguous()), words_PTW.numpy().view(np.uint32))
    return words_PTW


def add_products(sum_IJ: torch.Tensor, left: torch.Tensor, right: torch.Tensor, *, upper: bool) -> None:
    """Adds AᵀB to a float32 matrix; left and right are A and B as packed, of the same tokens.

    upper: A is B, and of the tiles below the diagonal none is computed.
    """
    _add_products(sum_IJ.numpy(), left.numpy().view(np.uint32), right.numpy().view(np.uint32), upper)


class _BFloat(ir.types.Type):  # type: ignore[misc]  # llvmlite is untyped, and has no such type; LLVM does
    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_WORD = ir.IntType(32)
_WORDS = ir.VectorType(_WORD, LANES)
_PAIRS = ir.VectorType(_BFloat(), 2 * LANES)
_SUMS = ir.VectorType(ir.FloatType(), LANES)


def _emit_tile_rows(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    left_array, left_at, right_array, right_at, pairs, tile_array = arguments
    offset = left_at.type

    def start(number: int, array: Any, at: Any) -> Any:
        return builder.gep(context.make_array(signature.args[number])(context, builder, array).data, [at])

    def step(pointer: Any, count: int) -> Any:
        return builder.gep(pointer, [ir.Constant(offset, count)])

    left, right = start(0, left_array, left_at), start(2, right_array, right_at)
    tile = start(5, tile_array, ir.Constant(offset, 0))
    kind = ir.FunctionType(_SUMS, [_SUMS, _PAIRS, _PAIRS])
    emit: Any = cgutils
    multiply = emit.get_or_insert_function(builder.module, kind, _INSTRUCTION)
    # Stack slots in the source, registers in the code: LLVM promotes them.
    zero = ir.Constant(_SUMS, None)
    sums = [[emit.alloca_once_value(builder, zero) for _ in range(VECTORS)] for _ in range(ROWS)]
    with emit.for_range(builder, pairs) as loop:
        at = builder.mul(loop.index, ir.Constant(offset, PANEL))
        left_row, right_row = builder.gep(left, [at]), builder.gep(right, [at])
        operands = [_load_pairs(builder, step(right_row, LANES * vector)) for vector in range(VECTORS)]
        for row, row_sums in enumerate(sums):
            factor = _broadcast(builder, builder.load(step(left_row, row)))
            for slot, operand in zip(row_sums, operands, strict=True):
                builder.store(builder.call(multiply, [builder.load(slot), factor, operand]), slot)
    for row, row_sums in enumerate(sums):
        for vector, slot in enumerate(row_sums):
            target = builder.bitcast(step(tile, PANEL * row + LANES * vector), _SUMS.as_pointer())
            builder.store(builder.load(slot), target, align=4)
    return context.get_dummy_value()


def _load_pairs(builder: Any, pointer: Any) -> Any:
    words = builder.load(builder.bitcast(pointer, _WORDS.as_pointer()), align=4)
    return builder.bitcast(words, _PAIRS)


def _broadcast(builder: Any, word: Any) -> Any:
    undefined = ir.Constant(_WORDS, ir.Undefined)
    first = builder.insert_element(undefined, word, ir.Constant(_WORD, 0))
    return builder.bitcast(builder.shuffle_vector(first, undefined, ir.Constant(_WORDS, None)), _PAIRS)


def _type_tile_rows(_context: Any, left: Any, left_at: Any, right: Any, right_at: Any, pairs: Any, tile: Any) -> Any:
    del left_at, right_at, pairs
    return types.void(left, types.intp, right, types.intp, types.intp, tile), _emit_tile_rows


# Called as _tile_rows(left, left_at, right, right_at, pairs, tile) from compiled code: sums ROWS x PANEL products over
# all pairs into `tile`. The offsets are in words from the arrays' starts.
_tile_rows: Any = intrinsic(_type_tile_rows)


@numba.njit(parallel=True, cache=True, nogil=True)
def _pack(X: Halves, words: Words) -> None:
    rows, width = X.shape
    panels, pairs, size = words.shape
    for number in numba.prange(panels):
        panel = np.intp(number)
        first = panel * size
        used = min(size, width - first)
        words[panel, :, used:] = 0
        for pair in range(rows // 2):
            for lane in range(used):
                early, late = X[2 * pair, first + lane], X[2 * pair + 1, first + lane]
                words[panel, pair, lane] = np.uint32(early) | (np.uint32(late) << np.uint32(16))
        if rows % 2:
            for lane in range(used):
                words[panel, pairs - 1, lane] = np.uint32(X[rows - 1, first + lane])


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
            _tile_rows(left_words, i * pairs * size + row, right_words, j * pairs * size, pairs, tile)
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
