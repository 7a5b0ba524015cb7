"""The gate of a feed-forward network in one pass over bfloat16 numbers: act(gate) · up, in the memory of the gate.

There are 65,536 bfloat16 numbers, so that any function of one number is a table, made by the function itself: the
results are the same bit by bit. Of millions of numbers, looking one up costs less than an exponential and a pass more.
"""

from __future__ import annotations

import numba
import numpy as np
import torch

from core.kernels.bfloat16 import Bfloats, bits_of, rounded, widened

TABLE_NUMBERS = 1 << 16
# Numbers of one turn of a thread, and those that are looked up before they are multiplied.
PART_NUMBERS = 1 << 14
STEP_NUMBERS = 256


def every_number() -> torch.Tensor:
    """Returns all bfloat16 numbers in the order of their bits; some are not finite."""
    return torch.arange(TABLE_NUMBERS, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)


def gate(inner: torch.Tensor, up: torch.Tensor, table: torch.Tensor) -> None:
    """Overwrites each number by what the table has for it, times `up`; all bfloat16, on the CPU, contiguous.

    table: what became of `every_number`.
    """
    _gate(bits_of(inner).reshape(-1), bits_of(up).reshape(-1), bits_of(table))


@numba.njit(parallel=True, cache=True, nogil=True)
def _gate(inner: Bfloats, up: Bfloats, table: Bfloats) -> None:
    numbers = inner.shape[0]
    for turn in numba.prange((numbers + PART_NUMBERS - 1) // PART_NUMBERS):
        first = int(np.intp(turn)) * PART_NUMBERS
        found = np.empty(STEP_NUMBERS, dtype=np.uint16)
        for start in range(first, min(first + PART_NUMBERS, numbers), STEP_NUMBERS):
            stop = min(start + STEP_NUMBERS, numbers)
            _gate_step(inner[start:stop], up[start:stop], table, found)


@numba.njit(cache=True, nogil=True)
def _gate_step(inner: Bfloats, up: Bfloats, table: Bfloats, found: Bfloats) -> None:
    for number in range(inner.shape[0]):
        found[number] = table[inner[number]]
    for number in range(inner.shape[0]):
        inner[number] = rounded(widened(found[number]) * widened(up[number]))
