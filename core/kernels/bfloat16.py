"""bfloat16 numbers in compiled code, which knows no such type: as the 16 bits that they are stored in.

A bfloat16 is the upper half of a float32. Rounding is to nearest, ties to even, as torch's, to float16 as
well.
"""

# ruff: noqa: ANN401 - types and values of numba and llvmlite have no static types

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

Bfloats = npt.NDArray[np.uint16]


def bits_of(X: torch.Tensor) -> Bfloats:
    """Returns a contiguous bfloat16 tensor's memory as the kernels read and write it."""
    return X.detach().view(torch.int16).numpy().view(np.uint16)


_HALF = ir.IntType(16)
_WORD = ir.IntType(32)
_FLOAT = ir.FloatType()
_UPPER = ir.Constant(_WORD, 16)
_NOT_A_NUMBER = ir.Constant(_WORD, 0x7FC0)


def _type_widened(_context: Any, half: Any) -> Any:
    del half
    return types.float32(types.uint16), _emit_widened


def _emit_widened(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
    return builder.bitcast(builder.shl(builder.zext(arguments[0], _WORD), _UPPER), _FLOAT)


def _type_rounded(_context: Any, number: Any) -> Any:
    del number
    return types.uint16(types.float32), _emit_rounded


def _emit_rounded(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
    bits = builder.bitcast(arguments[0], _WORD)
    odd = builder.and_(builder.lshr(bits, _UPPER), ir.Constant(_WORD, 1))
    nearest = builder.lshr(builder.add(builder.add(bits, ir.Constant(_WORD, 0x7FFF)), odd), _UPPER)
    is_none = builder.fcmp_unordered("uno", arguments[0], arguments[0])
    return builder.trunc(builder.select(is_none, _NOT_A_NUMBER, nearest), _HALF)


def _type_as_float16(_context: Any, number: Any) -> Any:
    del number
    return types.float32(types.float32), _emit_as_float16


def _emit_as_float16(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
    return builder.fpext(builder.fptrunc(arguments[0], ir.HalfType()), _FLOAT)


# In 32 bits throughout: Numba's own arithmetic would widen to 64, and halve the lanes of a vector.
widened: Any = intrinsic(_type_widened)
"""Returns a bfloat16 as float32; called from compiled code."""
rounded: Any = intrinsic(_type_rounded)
"""Returns the bfloat16 nearest to a float32; called from compiled code."""
as_float16: Any = intrinsic(_type_as_float16)
"""Returns the float16 nearest to a float32, as a float32, infinite beyond them all; called from compiled code."""
