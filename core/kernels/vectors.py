"""Vectors of 16 numbers for code that is emitted by hand, where the registers decide and a compiled loop leaves them.

Types, and how arrays of compiled code are read and written by them.
"""

# ruff: noqa: ANN401 - types and values of numba and llvmlite have no static types

from __future__ import annotations

from functools import cache
from typing import Any

import llvmlite.binding
import numba
from llvmlite import ir
from numba.core import cgutils

LANES = 16
WORD = ir.IntType(32)
FLOATS = ir.VectorType(ir.FloatType(), LANES)
WORDS = ir.VectorType(WORD, LANES)


class _BFloat(ir.types.Type):  # type: ignore[misc]  # llvmlite is untyped, and has no such type; LLVM does
    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


BFLOATS = ir.VectorType(_BFloat(), LANES)
PAIRS = ir.VectorType(_BFloat(), 2 * LANES)


@cache  # asking LLVM takes as long as a small product
def has_feature(name: str) -> bool:
    """Whether this CPU has what LLVM calls by that name, and Numba compiles for this CPU."""
    other_target = numba.config.CPU_NAME  # type: ignore[attr-defined]  # numba sets it from its variables
    return other_target is None and bool(llvmlite.binding.get_host_cpu_features().get(name))


def element(context: Any, builder: Any, signature: Any, arguments: Any, number: int, at: Any) -> Any:
    """Returns the address of an element of the argument with that number, a contiguous array."""
    array = context.make_array(signature.args[number])(context, builder, arguments[number])
    return builder.gep(array.data, [at])


def step(builder: Any, pointer: Any, count: int) -> Any:
    """Returns the address so many elements on."""
    return builder.gep(pointer, [ir.Constant(ir.IntType(64), count)])


def load(builder: Any, pointer: Any, kind: Any = FLOATS) -> Any:
    """Reads a vector from where an element lies."""
    return builder.load(builder.bitcast(pointer, kind.as_pointer()), align=4)


def store(builder: Any, vector: Any, pointer: Any) -> None:
    """Writes a vector to where an element lies."""
    builder.store(vector, builder.bitcast(pointer, vector.type.as_pointer()), align=4)


def spread(builder: Any, number: Any) -> Any:
    """Returns a vector that holds a number in every lane."""
    kind = ir.VectorType(number.type, LANES)
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, number, ir.Constant(WORD, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(WORDS, None))


def whole_numbers(number: int) -> Any:
    """Returns a vector of one whole number."""
    return ir.Constant(WORDS, [ir.Constant(WORD, number)] * LANES)


def constant(number: float) -> Any:
    """Returns a vector of one number, rounded to float32."""
    return ir.Constant(FLOATS, [ir.Constant(ir.FloatType(), number)] * LANES)


def multiply_add(builder: Any, left: Any, right: Any, added: Any) -> Any:
    """Returns left · right + added, rounded once."""
    emit: Any = cgutils
    kind = ir.FunctionType(FLOATS, [FLOATS] * 3)
    return builder.call(
        emit.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32"), [left, right, added]
    )


def multiply_add_pairs(builder: Any, left: Any, right: Any, added: Any) -> Any:
    """Returns left · right + added in each lane: two products of bfloat16 neighbours, for a CPU with `avx512bf16`."""
    emit: Any = cgutils
    kind = ir.FunctionType(FLOATS, [FLOATS, PAIRS, PAIRS])
    name = "llvm.x86.avx512bf16.dpbf16ps.512"
    return builder.call(emit.get_or_insert_function(builder.module, kind, name), [added, left, right])
