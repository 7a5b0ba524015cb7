"""Divides by a damped Hessian without its inverse: A (H+λI)⁻¹ = A R⁻ᵀ R⁻¹ with H+λI = RRᵀ, R upper.

R alone takes half of the products that its inverse takes, and dividing by it as many as multiplying by that. Both are
done in place, by halves down to leaves, whose inverses are kept: what is divided by them is multiplied.

Legend: O rows of what is divided, I its columns.
"""

from __future__ import annotations

import torch

from core.blocking import LEAF_COLUMNS
from core.kernels.halves import Half, Halves
from core.profile import Work
from core.solver.multiplication import add_product, multiply_into, rounded, times_transposed

ALIGNED = 64


class Divisor:
    """R_II: upper, RRᵀ = A; what lies below its diagonal is not meaningful."""

    def __init__(self, A_II: torch.Tensor) -> None:
        """A symmetric, of which the upper half is read; its memory becomes that of R, see `of`."""
        self.R_II = A_II
        self._inverse_leaves: dict[int, torch.Tensor] = {}

    @classmethod
    def of(cls, A_II: torch.Tensor) -> Divisor | None:
        """Factorizes A where it lies; None where it is not positive definite, and is lost."""
        divisor = cls(A_II)
        return divisor if divisor._factorize(0, A_II.shape[0]) else None

    def divide(self, A_OI: torch.Tensor) -> None:
        """Overwrites A by A (RRᵀ)⁻¹; both sides of its products are rounded, see `multiplication.rounded`."""
        self._divide_by_transposed(A_OI, 0, self.R_II.shape[0], Work.TARGET, rounds=True)
        self._divide(A_OI, 0, self.R_II.shape[0])

    def _factorize(self, start: int, stop: int) -> bool:
        """Factorizes the square from start to stop, the last columns first."""
        if stop - start <= LEAF_COLUMNS:
            return self._factorize_leaf(start, stop)
        middle = _middle(start, stop)
        first, above = self.R_II[start:middle, start:middle], self.R_II[start:middle, middle:stop]
        if not self._factorize(middle, stop):
            return False
        self._divide_by_transposed(above, middle, stop, Work.FACTORIZATION, rounds=False)
        add_product(first, above, above, Work.FACTORIZATION, factor=-1.0, halves=Halves(wanted=Half.UPPER))
        return self._factorize(start, middle)

    def _factorize_leaf(self, start: int, stop: int) -> bool:
        """Does so by the library, which factorizes from the first column on."""
        leaf_II = self.R_II[start:stop, start:stop]
        L_II, info = torch.linalg.cholesky_ex(leaf_II.flip(0, 1))
        leaf_II.copy_(L_II.flip(0, 1))
        self._inverse_leaves[start] = invert(leaf_II)
        return not int(info)

    def _divide_by_transposed(self, A_OI: torch.Tensor, start: int, stop: int, work: Work, *, rounds: bool) -> None:
        """Overwrites A by A R⁻ᵀ, with R's square from start to stop."""
        if stop - start <= LEAF_COLUMNS:
            inverse_II = self._inverse_leaves[start]
            A_OI.copy_(times_transposed(A_OI, inverse_II, work, halves=Halves(right=Half.UPPER)))
            return
        middle = _middle(start, stop)
        early_OI, late_OI = A_OI[:, : middle - start], A_OI[:, middle - start :]
        self._divide_by_transposed(late_OI, middle, stop, work, rounds=rounds)
        side_OI = rounded(late_OI) if rounds else late_OI
        add_product(early_OI, side_OI, self.R_II[start:middle, middle:stop], work, factor=-1.0)
        self._divide_by_transposed(early_OI, start, middle, work, rounds=rounds)

    def _divide(self, A_OI: torch.Tensor, start: int, stop: int) -> None:
        """Overwrites A by A R⁻¹, with R's square from start to stop."""
        if stop - start <= LEAF_COLUMNS:
            inverse_II = self._inverse_leaves[start]
            A_OI.copy_(times_transposed(A_OI, inverse_II.T, Work.TARGET, halves=Halves(right=Half.LOWER)))
            return
        middle = _middle(start, stop)
        early_OI, late_OI = A_OI[:, : middle - start], A_OI[:, middle - start :]
        self._divide(early_OI, start, middle)
        add_product(late_OI, rounded(early_OI), self.R_II[start:middle, middle:stop].T, Work.TARGET, factor=-1.0)
        self._divide(late_OI, middle, stop)


def invert(R_II: torch.Tensor) -> torch.Tensor:
    """Returns the inverse of an upper triangle, 0 below its diagonal, by halves down to leaves."""
    width = R_II.shape[0]
    if width <= LEAF_COLUMNS:
        identity_II = torch.eye(width, dtype=R_II.dtype, device=R_II.device)
        return torch.linalg.solve_triangular(R_II, identity_II, upper=True).contiguous()
    middle = _middle(0, width)
    first_II, last_II = invert(R_II[:middle, :middle]), invert(R_II[middle:, middle:])
    inverse_II = torch.zeros_like(R_II, memory_format=torch.contiguous_format)
    inverse_II[:middle, :middle], inverse_II[middle:, middle:] = first_II, last_II
    above = times_transposed(R_II[:middle, middle:], last_II.T, Work.FACTORIZATION, halves=Halves(right=Half.LOWER))
    target = inverse_II[:middle, middle:]
    halves = Halves(left=Half.UPPER)
    multiply_into(target, first_II, above.T, Work.FACTORIZATION, factor=-1.0, halves=halves)
    return inverse_II


def _middle(start: int, stop: int) -> int:
    """Returns where a square that is wider than a leaf is halved."""
    return start - (start - stop) // (2 * ALIGNED) * ALIGNED
