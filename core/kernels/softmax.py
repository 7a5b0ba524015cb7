"""One step of the online softmax (https://arxiv.org/abs/1805.02867), emitted by hand: every lane is a query.

As a compiled loop it takes twice the time of the products that it lies between.
"""

# ruff: noqa: ANN401 - types and values of numba and llvmlite have no static types

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from core.kernels.arrays import ROUND
from core.kernels.tiles import PANEL, VECTORS
from core.kernels.vectors import (
    BFLOATS,
    FLOATS,
    LANES,
    WORDS,
    constant,
    element,
    load,
    multiply_add,
    spread,
    step,
    store,
    whole_numbers,
)

# Powers of two below this one become 0, before their exponent has no bits left.
_LEAST = -126.0
# 2^f = Σ (f ln 2)^n / n! for f in [-1/2, 1/2]: 2e-6 off at most, where bfloat16 is 4e-3.
_SERIES = [math.log(2) ** n / math.factorial(n) for n in range(6)]
_BIAS = 127
_MANTISSA_BITS = 23
_HALF_BITS = 16


def _emit_soften(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    _, keys, factor, *_ = arguments
    nowhere = ir.Constant(ir.IntType(64), 0)
    names = ("scores", "highest", "fade", "total", "shares")
    places = {
        name: element(context, builder, signature, arguments, number, nowhere)
        for name, number in zip(names, (0, 3, 4, 5, 6), strict=True)
    }
    lanes = [{name: step(builder, at, LANES * vector) for name, at in places.items()} for vector in range(VECTORS)]
    factors = spread(builder, factor)
    for at, largest in zip(lanes, _largest(builder, places["scores"], keys), strict=True):
        _fade(builder, at, builder.fmul(largest, factors))
    _share(builder, lanes, keys, factors)
    return context.get_dummy_value()


def _largest(builder: Any, scores: Any, keys: Any) -> list[Any]:
    """Returns the largest scores; those of all vectors side by side, since each comparison waits for the one before."""
    emit: Any = cgutils
    slots = [emit.alloca_once_value(builder, constant(-math.inf)) for _ in range(VECTORS)]
    with emit.for_range(builder, keys) as loop:
        row = builder.gep(scores, [builder.mul(loop.index, ir.Constant(keys.type, PANEL))])
        for vector, slot in enumerate(slots):
            score, so_far = load(builder, step(builder, row, LANES * vector)), builder.load(slot)
            # A score that is no number is taken, and makes its query's results none either.
            builder.store(builder.select(builder.fcmp_unordered("ugt", score, so_far), score, so_far), slot)
    return [builder.load(slot) for slot in slots]


def _fade(builder: Any, at: dict[str, Any], scaled: Any) -> None:
    """Takes note of the largest score by now, and of what earlier shares and their total are worth under it."""
    before = load(builder, at["highest"])
    highest = builder.select(builder.fcmp_unordered("ugt", scaled, before), scaled, before)
    fade = _exp2(builder, builder.fsub(before, highest))
    store(builder, highest, at["highest"])
    store(builder, fade, at["fade"])
    store(builder, builder.fmul(load(builder, at["total"]), fade), at["total"])


def _share(builder: Any, lanes: list[dict[str, Any]], keys: Any, factor: Any) -> None:
    """Writes the shares and adds them to their totals."""
    emit: Any = cgutils
    lowers = [builder.fneg(load(builder, at["highest"])) for at in lanes]
    totals = [emit.alloca_once_value(builder, load(builder, at["total"])) for at in lanes]
    with emit.for_range(builder, builder.lshr(keys, ir.Constant(keys.type, 1))) as loop:
        row = builder.mul(loop.index, ir.Constant(keys.type, 2 * PANEL))
        target = builder.mul(loop.index, ir.Constant(keys.type, PANEL))
        for at, lower, total in zip(lanes, lowers, totals, strict=True):
            pair = builder.gep(at["scores"], [row])
            rounded = []
            for score in (load(builder, pair), load(builder, step(builder, pair, PANEL))):
                word = _rounded(builder, _exp2(builder, multiply_add(builder, score, factor, lower)))
                builder.store(builder.fadd(builder.load(total), builder.bitcast(_raised(builder, word), FLOATS)), total)
                rounded.append(word)
            words = builder.or_(rounded[0], _raised(builder, rounded[1]))
            store(builder, words, builder.gep(at["shares"], [target]))
    for at, total in zip(lanes, totals, strict=True):
        store(builder, builder.load(total), at["total"])


def _exp2(builder: Any, power: Any) -> Any:
    """Returns 2 to the power, 0 where that is below the smallest normal number."""
    too_low = builder.fcmp_ordered("olt", power, constant(_LEAST))
    inside = builder.select(too_low, constant(_LEAST), power)
    whole = builder.fsub(builder.fadd(inside, constant(float(ROUND))), constant(float(ROUND)))
    rest = builder.fsub(inside, whole)
    near = constant(_SERIES[-1])
    for coefficient in reversed(_SERIES[:-1]):
        near = multiply_add(builder, near, rest, constant(coefficient))
    biased = builder.add(builder.fptosi(whole, WORDS), whole_numbers(_BIAS))
    scale = builder.bitcast(builder.shl(biased, whole_numbers(_MANTISSA_BITS)), FLOATS)
    return builder.select(too_low, constant(0.0), builder.fmul(near, scale))


def _rounded(builder: Any, numbers: Any) -> Any:
    """Returns the nearest bfloat16 numbers in the lower halves of words."""
    halves = builder.bitcast(builder.fptrunc(numbers, BFLOATS), ir.VectorType(ir.IntType(_HALF_BITS), LANES))
    return builder.zext(halves, WORDS)


def _raised(builder: Any, words: Any) -> Any:
    return builder.shl(words, whole_numbers(_HALF_BITS))


def _type_soften(
    _context: Any, scores: Any, keys: Any, factor: Any, highest: Any, fade: Any, total: Any, shares: Any
) -> Any:
    del keys, factor
    return types.void(scores, types.intp, types.float32, highest, fade, total, shares), _emit_soften


soften: Any = intrinsic(_type_soften)
"""Turns a block's scores into shares of its queries' attention; called from compiled code.

soften(scores, keys, factor, highest, fade, total, shares): scores [keys, PANEL], an even number of keys, are multiplied
by a positive factor and taken as powers of two. highest, fade and total [PANEL]: the largest scaled score so far, what
is written of how much earlier shares are worth under the new one, and the sum of the shares. shares [keys/2, PANEL]:
two keys' in a word, as bfloat16, not yet divided by their total.
"""
