"""Adds up products over the tokens of a batch: the triangle of XᵀX, and the whole of AᵀB, in float32.

bfloat16 rows on a CPU that has the dot-product instruction are multiplied as they are, exactly, with float32 sums;
everything else is multiplied in float32 by torch.

Legend: N tokens of one batch, I and J inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from core.kernels.compiled import trouble
from core.profile import Work, count

# Columns per block of the triangle: where torch's products reach their full rate and little is computed in vain.
BLOCK_COLUMNS = 128


@dataclass(frozen=True, slots=True)
class FloatRows:
    """Tokens as float32 rows."""

    X_NI: torch.Tensor

    def add_gram(self, upper_II: torch.Tensor) -> None:
        """Adds XᵀX to the upper triangle; what lies below it is not meaningful."""
        _count_gram(self.X_NI.shape[0], upper_II, "float32")
        for start in range(0, self.X_NI.shape[1], BLOCK_COLUMNS):
            stop = start + BLOCK_COLUMNS
            upper_II[start:stop, start:].addmm_(self.X_NI[:, start:stop].T, self.X_NI[:, start:])

    def add_cross(self, sum_JI: torch.Tensor, other_NJ: torch.Tensor) -> None:
        """Adds the product of other rows of the same tokens with these: otherᵀ X."""
        _count_cross(other_NJ.shape[0], sum_JI, "float32")
        sum_JI.addmm_(other_NJ.float().T, self.X_NI)

    def add_crossed(self, sum_IJ: torch.Tensor, other_NJ: torch.Tensor) -> None:
        """Adds the same transposed: Xᵀ other."""
        _count_cross(other_NJ.shape[0], sum_IJ, "float32")
        sum_IJ.addmm_(self.X_NI.T, other_NJ.float())


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Tokens as `numba_products` reads them, in chunks."""

    chunks: Sequence[torch.Tensor]
    tokens: int

    def add_gram(self, upper_II: torch.Tensor) -> None:
        """See FloatRows."""
        _count_gram(self.tokens, upper_II, "bfloat16")
        from core.kernels import numba_products  # noqa: PLC0415 - as in rows_of

        for chunk in self.chunks:
            numba_products.add_products(upper_II, chunk, chunk, upper=True)

    def add_cross(self, sum_JI: torch.Tensor, other_NJ: torch.Tensor) -> None:
        """See FloatRows."""
        _count_cross(self.tokens, sum_JI, "bfloat16")
        from core.kernels import numba_products  # noqa: PLC0415 - as in rows_of

        for other, chunk in zip(torch.split(other_NJ, numba_products.CHUNK_TOKENS), self.chunks, strict=True):
            numba_products.add_products(sum_JI, numba_products.pack(other), chunk, upper=False)

    def add_crossed(self, sum_IJ: torch.Tensor, other_NJ: torch.Tensor) -> None:
        """See FloatRows."""
        _count_cross(self.tokens, sum_IJ, "bfloat16")
        from core.kernels import numba_products  # noqa: PLC0415 - as in rows_of

        for other, chunk in zip(torch.split(other_NJ, numba_products.CHUNK_TOKENS), self.chunks, strict=True):
            numba_products.add_products(sum_IJ, chunk, numba_products.pack(other), upper=False)


def rows_of(X_NI: torch.Tensor) -> FloatRows | PackedRows:
    """Makes rows of any float dtype ready to be multiplied; one form serves every product that they take part in."""
    if X_NI.dtype is torch.bfloat16 and X_NI.device.type == "cpu" and trouble() is None:
        from core.kernels import numba_products  # noqa: PLC0415 - Numba may be missing

        if numba_products.is_available():
            chunks = [numba_products.pack(chunk) for chunk in torch.split(X_NI, numba_products.CHUNK_TOKENS)]
            return PackedRows(chunks, X_NI.shape[0])
    return FloatRows(X_NI.float())


def _count_gram(tokens: int, sum_II: torch.Tensor, dtype: str) -> None:
    count(Work.HESSIAN, operations=float(tokens) * sum_II.numel(), dtype=dtype)


def _count_cross(tokens: int, sum_IJ: torch.Tensor, dtype: str) -> None:
    count(Work.HESSIAN, operations=2.0 * tokens * sum_IJ.numel(), dtype=dtype)
