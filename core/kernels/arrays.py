"""How compiled kernels see the memory of tensors, and a number that several of them round with."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import types

Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint32]
Numbers = Floats | Words

_KINDS: Any = types
VIEW: Final = _KINDS.Array(_KINDS.float32, 2, "A")
"""A float32 matrix of any strides, for kernels that are compiled when their module is imported."""
ROUND: Final = np.float32(12582912.0)
"""1.5·2^23: adding and subtracting it rounds a float32 below 2^22 to the nearest whole number, ties to even; what is
larger stays far outside every range of codes."""
