"""Adds up products over the tokens of a batch: the triangle of XᵀX, and the whole of AᵀB, in float32.

bfloat16 rows on a CPU that has the dot-product instruction are multiplied as they are, exactly, with float32 sums;
everything else is multiplied in float32 by torch.

Legend: N tokens of one batch, I and J inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from core.device import CPU
from core.kernels.compiled import multiplies
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
    """Tokens as `kernels.numba_products` reads them."""

    words: torch.Tensor
    tokens: int
    packer: RowPacker

    def add_gram(self, upper_II: torch.Tensor) -> None:
        """See FloatRows."""
        _count_gram(self.tokens, upper_II, "bfloat16")
        self._add(upper_II, self.words, self.words, upper=True)

    def add_cross(self, sum_JI: torch.Tensor, other_NJ: torch.Tensor) -> None:
        """See FloatRows."""
        _count_cross(self.tokens, sum_JI, "bfloat16")
        self._add(sum_JI, self.packer.beside(other_NJ), self.words)

    def add_crossed(self, sum_IJ: torch.Tensor, other_NJ: torch.Tensor) -> None:
        """See FloatRows."""
        _count_cross(self.tokens, sum_IJ, "bfloat16")
        self._add(sum_IJ, self.words, self.packer.beside(other_NJ))

    def _add(self, sum_IJ: torch.Tensor, left: torch.Tensor, right: torch.Tensor, *, upper: bool = False) -> None:
        from core.kernels.numba_products import add_products  # noqa: PLC0415 - Numba may be missing

        add_products(sum_IJ, left, right, upper=upper)


class RowPacker:
    """Makes rows of any float dtype ready to be multiplied; what is packed lies in memory that serves every batch.

    Fresh memory for each batch would cost as much as the packing.
    """

    def __init__(self) -> None:
        """Holds nothing yet."""
        self._memory: dict[str, torch.Tensor] = {}

    def parts(self, X_NI: torch.Tensor) -> Iterator[tuple[slice, FloatRows | PackedRows]]:
        """Yields rows with the part of the tokens that they are, which serve every product until the next ones."""
        for part in self.slices(X_NI):
            yield part, self.rows(X_NI[part])

    def slices(self, X_NI: torch.Tensor) -> list[slice]:
        """Returns the parts of the tokens that are multiplied one after the other."""
        if not multiplies(X_NI, torch.bfloat16):
            return [slice(None)]
        from core.kernels.numba_products import CHUNK_TOKENS  # noqa: PLC0415 - Numba may be missing

        return [slice(start, start + CHUNK_TOKENS) for start in range(0, X_NI.shape[0], CHUNK_TOKENS)]

    def rows(self, X_NI: torch.Tensor) -> FloatRows | PackedRows:
        """Returns the rows of one part, which serve every product until the next ones."""
        return self._packed(X_NI)[0] if multiplies(X_NI, torch.bfloat16) else FloatRows(X_NI.float())

    def moderate_rows(self, X_NI: torch.Tensor) -> PackedRows | None:
        """Returns the same where packing them shows that every value is finite; None where that takes a closer look.

        Values near the largest float32 take one as well: the sum of a row may not be finite then.
        """
        if not multiplies(X_NI, torch.bfloat16):
            return None
        rows, moderate = self._packed(X_NI)
        return rows if moderate else None

    def beside(self, other_NJ: torch.Tensor) -> torch.Tensor:
        """Returns rows that are multiplied with those at hand, packed; they serve until the next ones."""
        return self._pack("beside", other_NJ)[0]

    def _packed(self, X_NI: torch.Tensor) -> tuple[PackedRows, bool]:
        words, moderate = self._pack("own", X_NI)
        return PackedRows(words, X_NI.shape[0], self), moderate

    def _pack(self, side: str, rows_NI: torch.Tensor) -> tuple[torch.Tensor, bool]:
        from core.kernels.numba_products import pack, packed_words  # noqa: PLC0415 - Numba may be missing

        words = packed_words(*rows_NI.shape)
        if side not in self._memory or self._memory[side].numel() < words:
            self._memory[side] = torch.empty(words, dtype=torch.int32, device=CPU)
        return pack(rows_NI, self._memory[side])


def _count_gram(tokens: int, sum_II: torch.Tensor, dtype: str) -> None:
    count(Work.HESSIAN, operations=float(tokens) * sum_II.numel(), dtype=dtype)


def _count_cross(tokens: int, sum_IJ: torch.Tensor, dtype: str) -> None:
    count(Work.HESSIAN, operations=2.0 * tokens * sum_IJ.numel(), dtype=dtype)
