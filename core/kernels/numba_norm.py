"""The root-mean-square norm of bfloat16 tokens in one pass; torch makes four float32 tensors of their size on the way.

What is rounded, and in which order, is what transformers' modules do: x / rms(x) to bfloat16, then times the weight to
bfloat16. Squares are added up in float32 in another order, so that a result in some ten thousands is the next number.

Legend: N tokens, I in_features.
"""

from __future__ import annotations

import numba
import numpy as np
import torch

from core.kernels.arrays import Floats
from core.kernels.bfloat16 import Bfloats, bits_of, rounded, widened

# Tokens of one turn of a thread, and squares that are added up side by side.
TOKENS = 64
LANES = 64


def norm_rows(X_NI: torch.Tensor, weight_I: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Returns weight · x / sqrt(mean x² + epsilon) of each row; all bfloat16, on the CPU, contiguous."""
    out_NI = torch.empty_like(X_NI)
    _norm_rows(bits_of(X_NI), weight_I.detach().float().numpy(), np.float32(epsilon), bits_of(out_NI))
    return out_NI


@numba.njit(parallel=True, cache=True, nogil=True)
def _norm_rows(X: Bfloats, weight: Floats, epsilon: np.float32, out: Bfloats) -> None:
    rows, width = X.shape
    for turn in numba.prange((rows + TOKENS - 1) // TOKENS):
        first = int(np.intp(turn)) * TOKENS
        numbers = np.zeros(-(-width // LANES) * LANES, dtype=np.float32)
        for row in range(first, min(first + TOKENS, rows)):
            _take_row(X[row], numbers)
            mean = np.float32(_sum_of_squares(numbers) / width)
            _scale_row(numbers, np.float32(1.0) / np.sqrt(mean + epsilon), weight, out[row])


@numba.njit(cache=True, nogil=True)
def _take_row(row: Bfloats, numbers: Floats) -> None:
    for column in range(row.shape[0]):
        numbers[column] = widened(row[column])


@numba.njit(cache=True, nogil=True)
def _sum_of_squares(numbers: Floats) -> float:
    squares = np.zeros(LANES, dtype=np.float32)
    for start in range(0, numbers.shape[0], LANES):
        part = numbers[start : start + LANES]
        for lane in range(LANES):
            squares[lane] += part[lane] * part[lane]
    total = 0.0
    for lane in range(LANES):
        total += squares[lane]
    return total


@numba.njit(cache=True, nogil=True)
def _scale_row(numbers: Floats, scale: np.float32, weight: Floats, out: Bfloats) -> None:
    for column in range(out.shape[0]):
        out[column] = rounded(widened(rounded(numbers[column] * scale)) * weight[column])
