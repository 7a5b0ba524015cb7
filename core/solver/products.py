"""Adds up products over the tokens of a batch: the triangle of XᵀX, and the whole of AᵀB, in float32.

bfloat16 rows on a CPU that has the dot-product instruction are multiplied as they are, exactly, with float32 sums;
everything else is multiplied in float32 by torch.

Legend: N tokens of one batch, I and J inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from core.solver import bfloat16_kernels

# Columns per block of the triangle: where torch's products reach their full rate and little is computed in vain.
BLOCK_COLUMNS = 128


@dataclass(frozen=True, slots=True)
class FloatRows:
    """Tokens as float32 rows."""

    X_NI: torch.Tensor

    def add_gram(self, upper_II: torch.Tensor) -> None:
        """Adds XᵀX to the upper triangle; what lies below it is not meaningful."""
        for start in range(0, self.X_NI.shape[1], BLOCK_COLUMNS):
            stop = start + BLOCK_COLUMNS
            upper_II[start:stop, start:].addmm_(self.X_NI[:, start:stop].T, self.X_NI[:, start:])

    def add_cross(self, sum_IJ: torch.Tensor, other_NJ: torch.Tensor) -> None:
        """Adds the product of other rows of the same tokens with these: otherᵀ X."""
        sum_IJ.addmm_(other_NJ.float().T, self.X_NI)


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Tokens as `bfloat16_kernels` reads them, in chunks."""

    chunks: Sequence[torch.Tensor]

    def add_gram(self, upper_II: torch.Tensor) -> None:
        """See FloatRows."""
        for chunk in self.chunks:
            bfloat16_kernels.add_products(upper_II, chunk, chunk, upper=True)

    def add_cross(self, sum_IJ: torch.Tensor, other_NJ: torch.Tensor) -> None:
        """See FloatRows."""
        for other, chunk in zip(torch.split(other_NJ, bfloat16_kernels.CHUNK_TOKENS), self.chunks, strict=True):
            bfloat16_kernels.add_products(sum_IJ, bfloat16_kernels.pack(other), chunk, upper=False)


def rows_of(X_NI: torch.Tensor) -> FloatRows | PackedRows:
    """Makes rows of any float dtype ready to be multiplied; one form serves every product that they take part in."""
    if X_NI.dtype is torch.bfloat16 and X_NI.device.type == "cpu" and bfloat16_kernels.is_available():
        return PackedRows([bfloat16_kernels.pack(chunk) for chunk in torch.split(X_NI, bfloat16_kernels.CHUNK_TOKENS)])
    return FloatRows(X_NI.float())
