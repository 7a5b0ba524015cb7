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
    factors = spread(builder, factor)
    for vector in range(VECTORS):
        _soften_lanes(builder, {name: step(builder, at, LANES * vector) for name, at in places.items()}, keys, factors)
    return context.get_dummy_value()


def _soften_lanes(builder: Any, places: dict[str, Any], keys: Any, factor: Any) -> None:
    emit: Any = cgutils
    before = load(builder, places["highest"])
    largest = emit.alloca_once_value(builder, constant(-math.inf))
    with emit.for_range(builder, keys) as loop:
        row = builder.mul(loop.index, ir.Constant(keys.type, PANEL))
        score, so_far = load(builder, builder.gep(places["scores"], [row])), builder.load(largest)
        # A score that is no number is taken, and makes its query's results none either.
        builder.store(builder.select(builder.fcmp_unordered("ugt", score, so_far), score, so_far), largest)
    scaled = builder.fmul(builder.load(largest), factor)
    highest = builder.select(builder.fcmp_unordered("ugt", scaled, before), scaled, before)
    fade = _exp2(builder, builder.fsub(before, highest))
    total = emit.alloca_once_value(builder, builder.fmul(load(builder, places["total"]), fade))
    store(builder, highest, places["highest"])
    store(builder, fade, places["fade"])
    lower = builder.fneg(highest)
    with emit.for_range(builder, builder.lshr(keys, ir.Constant(keys.type, 1))) as loop:
        row = builder.mul(loop.index, ir.Constant(keys.type, 2 * PANEL))
        pair = builder.gep(places["scores"], [row])
        rounded = []
        for score in (load(builder, pair), load(builder, step(builder, pair, PANEL))):
            word = _rounded(builder, _exp2(builder, multiply_add(builder, score, factor, lower)))
            builder.store(builder.fadd(builder.load(total), builder.bitcast(_raised(builder, word), FLOATS)), total)
            rounded.append(word)
        at = builder.gep(places["shares"], [builder.mul(loop.index, ir.Constant(keys.type, PANEL))])
        store(builder, builder.or_(rounded[0], _raised(builder, rounded[1])), at)
    store(builder, builder.load(total), places["total"])


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
