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

    def in_float32(self) -> Divisor:
        """Returns the same in float32."""
        same = Divisor(self.R_II.float())
        same._inverse_leaves = {start: leaf.float() for start, leaf in self._inverse_leaves.items()}
        return same

    def squares(self, widest: int) -> list[tuple[int, int]]:
        """Returns where R is halved into squares on its diagonal, first and last column, none wider than that."""
        return _squares(0, self.R_II.shape[0], max(widest, LEAF_COLUMNS))

    def inverse(self, start: int, stop: int) -> torch.Tensor:
        """Returns the inverse of R's square from start to stop, 0 below its diagonal."""
        leaf_II = self._inverse_leaves.get(start)
        if leaf_II is not None and len(leaf_II) == stop - start:
            return leaf_II
        if stop - start <= LEAF_COLUMNS:
            return _inverse_lower(self.R_II[start:stop, start:stop].T).T.contiguous()
        middle = _middle(start, stop)
        first_II, last_II = self.inverse(start, middle), self.inverse(middle, stop)
        inverse_II = first_II.new_zeros(stop - start, stop - start)
        inverse_II[: middle - start, : middle - start] = first_II
        inverse_II[middle - start :, middle - start :] = last_II
        above, halves = self.R_II[start:middle, middle:stop], Halves(right=Half.LOWER)
        crossed = times_transposed(above, last_II.T, Work.FACTORIZATION, halves=halves)
        target, halves = inverse_II[: middle - start, middle - start :], Halves(left=Half.UPPER)
        multiply_into(target, first_II, crossed.T, Work.FACTORIZATION, factor=-1.0, halves=halves)
        return inverse_II

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
        self._inverse_leaves[start] = _inverse_lower(L_II).flip(0, 1).contiguous()
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


def _inverse_lower(L_II: torch.Tensor) -> torch.Tensor:
    identity_II = torch.eye(L_II.shape[0], dtype=L_II.dtype, device=L_II.device)
    inverse_II: torch.Tensor = torch.linalg.solve_triangular(L_II, identity_II, upper=False)
    return inverse_II


def _squares(start: int, stop: int, widest: int) -> list[tuple[int, int]]:
    if stop - start <= widest:
        return [(start, stop)]
    middle = _middle(start, stop)
    return _squares(start, middle, widest) + _squares(middle, stop, widest)


def _middle(start: int, stop: int) -> int:
    """Returns where a square that is wider than a leaf is halved."""
    return start - (start - stop) // (2 * ALIGNED) * ALIGNED
