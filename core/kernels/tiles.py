"""The CPU's bfloat16 dot-product instruction, in tiles whose sums stay in its registers.

The instruction takes pairs: acc += a₀b₀ + a₁b₁ in each of 16 lanes. Two neighbours of the dimension that is summed over
therefore lie beside each other in a 32-bit word.
"""

# ruff: noqa: ANN401 - types and values of numba and llvmlite have no static types

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from core.kernels.vectors import FLOATS, LANES, PAIRS, element, load, multiply_add_pairs, spread, step, store

ROWS = 8
VECTORS = 3
# ROWS x VECTORS sums, VECTORS operands and one broadcast fill the 32 vector registers but four.
PANEL = LANES * VECTORS


def _emit_tile_rows(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    _, left_at, row_step, pair_step, _, right_at, pairs, _, tile_at, _ = arguments
    offset = left_at.type
    addresses = ((0, left_at), (4, right_at), (7, tile_at))
    left, right, tile = (element(context, builder, signature, arguments, number, at) for number, at in addresses)
    fades = _fades(context, builder, signature, arguments)
    row_starts = [builder.mul(row_step, ir.Constant(offset, row)) for row in range(ROWS)]
    # Stack slots in the source, registers in the code: LLVM promotes them.
    emit: Any = cgutils
    sums = [[emit.alloca_once(builder, FLOATS) for _ in range(VECTORS)] for _ in range(ROWS)]
    for place, slot, vector in _slots(builder, tile, sums):
        first = builder.fmul(load(builder, place), fades[vector]) if fades else ir.Constant(FLOATS, None)
        builder.store(first, slot)
    with emit.for_range(builder, pairs) as loop:
        left_pair = builder.gep(left, [builder.mul(loop.index, pair_step)])
        right_pair = builder.gep(right, [builder.mul(loop.index, ir.Constant(offset, PANEL))])
        operands = [load(builder, step(builder, right_pair, LANES * vector), PAIRS) for vector in range(VECTORS)]
        for row_start, row_sums in zip(row_starts, sums, strict=True):
            factor = spread(builder, builder.load(builder.gep(left_pair, [row_start])))
            for slot, operand in zip(row_sums, operands, strict=True):
                added = multiply_add_pairs(builder, builder.bitcast(factor, PAIRS), operand, builder.load(slot))
                builder.store(added, slot)
    for place, slot, _ in _slots(builder, tile, sums):
        store(builder, builder.load(slot), place)
    return context.get_dummy_value()


def _fades(context: Any, builder: Any, signature: Any, arguments: Any) -> list[Any]:
    last = len(arguments) - 1
    if isinstance(signature.args[last], types.NoneType):
        return []
    start = element(context, builder, signature, arguments, last, ir.Constant(ir.IntType(64), 0))
    return [load(builder, step(builder, start, LANES * vector)) for vector in range(VECTORS)]


def _slots(builder: Any, tile: Any, sums: Any) -> Iterator[tuple[Any, Any, int]]:
    """Yields where each vector of a tile lies, its stack slot, and which one of its row it is."""
    for row, row_sums in enumerate(sums):
        for vector, slot in enumerate(row_sums):
            yield step(builder, tile, PANEL * row + LANES * vector), slot, vector


def _type_tile_rows(  # noqa: PLR0913, PLR0917 - a kernel's arguments
    _context: Any,
    left: Any,
    left_at: Any,
    row_step: Any,
    pair_step: Any,
    right: Any,
    right_at: Any,
    pairs: Any,
    tile: Any,
    tile_at: Any,
    fade: Any,
) -> Any:
    del left_at, row_step, pair_step, right_at, pairs, tile_at
    at = types.intp
    return types.void(left, at, at, at, right, at, at, tile, at, fade), _emit_tile_rows


tile_rows: Any = intrinsic(_type_tile_rows)
"""Writes ROWS x PANEL sums of products over all pairs; called from compiled code.

tile_rows(left, left_at, row_step, pair_step, right, right_at, pairs, tile, tile_at, fade): offsets and steps are in
words from the arrays' starts. left has the word of a row and a pair at row_step · row + pair_step · pair, right those
of a pair one after the other, and a panel for each pair. fade: PANEL numbers by which to multiply what the tile holds
before the sums are added to it; None where they take its place.
"""
