"""Two pieces of machine code for the CPU's kernels, written in LLVM's vectors since Numba has none.

`sum_tile` keeps a tile of sums in registers while it walks over the columns of both sides; `copy_square` moves a square
of numbers, transposed where asked, without touching one number at a time, and `copy_view` a matrix by such squares.
"""

# ruff: noqa: ANN401 - types and values of numba and llvmlite have no static types

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from core.kernels.arrays import Numbers
from core.kernels.vectors import (
    FLOATS,
    LANES,
    PAIRS,
    WORD,
    constant,
    element,
    load,
    multiply_add,
    multiply_add_pairs,
    spread,
    step,
    store,
)

ROWS = 6
VECTORS = 4
# ROWS x VECTORS sums, VECTORS operands and one broadcast fill the 32 vector registers but three.
PANEL = LANES * VECTORS
ITEM_BYTES = 4


def _line(builder: Any, pointer: Any, stride: Any, number: int) -> Any:
    """Returns the address so many lines further on."""
    return builder.gep(pointer, [builder.mul(stride, ir.Constant(stride.type, number))])


def _vector(builder: Any, line: Any, number: int) -> Any:
    """Returns the address of a vector of a line."""
    return step(builder, line, LANES * number)


def _emit_sum_tile(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    *_, places, factor, begins = arguments
    of_pairs = signature.args[0].dtype == types.uint32
    left_at, left_step, rows, right_at, depth, target_at, target_step = (
        builder.extract_value(places, number) for number in range(7)
    )
    addresses = enumerate((left_at, right_at, target_at))
    left, right, target = (element(context, builder, signature, arguments, number, at) for number, at in addresses)
    emit: Any = cgutils
    # Stack slots in the source, registers in the code: LLVM promotes them.
    sums = [[emit.alloca_once_value(builder, constant(0.0)) for _ in range(VECTORS)] for _ in range(ROWS)]
    lines = [_row(builder, left, left_step, rows, row) for row in range(ROWS)]
    multiply, kind = (_multiply_words, PAIRS) if of_pairs else (multiply_add, FLOATS)
    with emit.for_range(builder, depth) as loop:
        panel = builder.gep(right, [builder.mul(loop.index, ir.Constant(depth.type, PANEL))])
        operands = [load(builder, _vector(builder, panel, number), kind) for number in range(VECTORS)]
        for line, slots in zip(lines, sums, strict=True):
            number = spread(builder, builder.load(builder.gep(line, [loop.index])))
            for slot, operand in zip(slots, operands, strict=True):
                builder.store(multiply(builder, number, operand, builder.load(slot)), slot)
    scale = spread(builder, factor)
    with builder.if_else(emit.is_true(builder, begins)) as (into, onto):
        for branch, adds in ((into, False), (onto, True)):
            with branch:
                _put_sums(builder, sums, scale, [_line(builder, target, target_step, row) for row in range(ROWS)], adds)
    return context.get_dummy_value()


def _multiply_words(builder: Any, left: Any, right: Any, added: Any) -> Any:
    return multiply_add_pairs(builder, builder.bitcast(left, PAIRS), right, added)


def _row(builder: Any, left: Any, step: Any, rows: Any, row: int) -> Any:
    """Returns the pointer to a row; one that is not there is read as the last one is."""
    wanted, last = ir.Constant(step.type, row), builder.sub(rows, ir.Constant(step.type, 1))
    there = builder.select(builder.icmp_signed("<", wanted, rows), wanted, last)
    return builder.gep(left, [builder.mul(there, step)])


def _put_sums(builder: Any, sums: list[list[Any]], scale: Any, lines: list[Any], adds: bool) -> None:  # noqa: FBT001 - emits code
    for line, slots in zip(lines, sums, strict=True):
        for number, slot in enumerate(slots):
            place = _vector(builder, line, number)
            before = load(builder, place) if adds else constant(0.0)
            store(builder, multiply_add(builder, scale, builder.load(slot), before), place)


def _type_sum_tile(_context: Any, left: Any, right: Any, target: Any, places: Any, factor: Any, begins: Any) -> Any:
    kinds: Any = types
    return kinds.void(left, right, target, places, factor, begins), _emit_sum_tile


# Called as sum_tile(left, right, target, places, factor, begins) from compiled code: writes, where it begins, or adds
# the factor times ROWS x PANEL sums of products. places: of the left side's first number, the step from row to row, and
# how many rows there are; of the first number of the right side, PANEL of which lie beside each other for each column,
# and the number of columns; of the target's first number, and the step from row to row. All in numbers from the arrays'
# starts; the whole tile is written. Sides of uint32 hold two bfloat16 neighbours in each number, see `tiles`, and count
# in such pairs.
sum_tile: Any = intrinsic(_type_sum_tile)


def _emit_copy_square(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    *_, places, turns = arguments
    source_at, source_step, target_at, target_step = (builder.extract_value(places, number) for number in range(4))
    addresses = enumerate((source_at, target_at))
    source, target = (element(context, builder, signature, arguments, number, at) for number, at in addresses)
    vectors = [load(builder, _line(builder, source, source_step, number)) for number in range(LANES)]
    emit: Any = cgutils
    with builder.if_else(emit.is_true(builder, turns)) as (turned, straight):
        for branch, turning in ((straight, False), (turned, True)):
            with branch:
                found = _transposed(builder, vectors) if turning else vectors
                for number, vector in enumerate(found):
                    store(builder, vector, _line(builder, target, target_step, number))
    return context.get_dummy_value()


def _transposed(builder: Any, vectors: list[Any]) -> list[Any]:
    """Deals the second half of the vectors into the first, number by number, once for each bit of an index."""
    half = LANES // 2
    for _ in range(LANES.bit_length() - 1):
        dealt = []
        for early, late in zip(vectors[:half], vectors[half:], strict=True):
            for first in (0, half):
                lanes = [place for lane in range(first, first + half) for place in (lane, LANES + lane)]
                mask = ir.Constant(ir.VectorType(WORD, LANES), lanes)
                dealt.append(builder.shuffle_vector(early, late, mask))
        vectors = dealt
    return vectors


def _type_copy_square(_context: Any, source: Any, target: Any, places: Any, turns: Any) -> Any:
    kinds: Any = types
    return kinds.void(source, target, places, turns), _emit_copy_square


# Called as copy_square(source, target, places, turns) from compiled code: copies LANES x LANES numbers, transposed if
# told so. places: of the source's first number, the step from line to line, and both of the target, in numbers.
copy_square: Any = intrinsic(_type_copy_square)


@numba.njit(cache=True, nogil=True)
def copy_view(source: Numbers, target: Numbers) -> None:
    """Copies a matrix of any strides into another one of its shape, where it can a square of numbers at a time."""
    rows, columns = source.shape
    by_row, by_column = source.strides[0] // ITEM_BYTES, source.strides[1] // ITEM_BYTES
    to_row, to_column = target.strides[0] // ITEM_BYTES, target.strides[1] // ITEM_BYTES
    squares = (by_row == 1 or by_column == 1) and (to_row == 1 or to_column == 1)
    turns = (by_column == 1) != (to_column == 1)
    from_line = by_row if by_column == 1 else by_column
    to_line = to_row if to_column == 1 else to_column
    for row in range(0, rows, LANES):
        for column in range(0, columns, LANES):
            if squares and row + LANES <= rows and column + LANES <= columns:
                from_place, to_place = row * by_row + column * by_column, row * to_row + column * to_column
                copy_square(source, target, (from_place, from_line, to_place, to_line), turns)
            else:
                for i in range(row, min(row + LANES, rows)):
                    for k in range(column, min(column + LANES, columns)):
                        target[i, k] = source[i, k]
