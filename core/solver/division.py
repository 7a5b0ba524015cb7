"""Divides by a damped Hessian without its inverse: A (H+λI)⁻¹ = A R⁻ᵀ R⁻¹ with H+λI = RRᵀ, R upper.

R alone takes half of the products that its inverse takes, and dividing by it as many as multiplying by that. All is
done in place, by halves down to leaves, of which R's memory holds the inverses: what is divided by them is multiplied.

Legend: O rows of what is divided, I its columns.
"""

from __future__ import annotations

import torch

from core.blocking import LEAF_COLUMNS
from core.kernels.halves import Half, Halves
from core.profile import Work
from core.solver.factor import halves_of, invert_leaf
from core.solver.multiplication import add_product, rounded, times_transposed


def factor_in_place(A_II: torch.Tensor) -> bool:
    """Makes of A's upper half the divisor R, see above; False where A is not positive definite, and is lost."""
    if A_II.shape[0] <= LEAF_COLUMNS:
        return invert_leaf(A_II)
    first, above, second = halves_of(A_II)
    if not factor_in_place(second):
        return False
    _divide_by_transposed(above, second)
    add_product(first, above, above, Work.FACTORIZATION, factor=-1.0, halves=Halves(wanted=Half.UPPER))
    return factor_in_place(first)


def divide(A_OI: torch.Tensor, divisor_II: torch.Tensor) -> None:
    """Overwrites A by A (RRᵀ)⁻¹; divisor: what `factor_in_place` made."""
    _divide_by_transposed(A_OI, divisor_II)
    _divide_by(A_OI, divisor_II)


def _divide_by_transposed(A_OI: torch.Tensor, divisor_II: torch.Tensor) -> None:
    """Overwrites A by A R⁻ᵀ."""
    if divisor_II.shape[0] <= LEAF_COLUMNS:
        A_OI.copy_(times_transposed(A_OI, divisor_II, Work.TARGET, halves=Halves(right=Half.UPPER)))
        return
    first, above, second = halves_of(divisor_II)
    early_OI, late_OI = A_OI[:, : first.shape[0]], A_OI[:, first.shape[0] :]
    _divide_by_transposed(late_OI, second)
    add_product(early_OI, rounded(late_OI), above, Work.TARGET, factor=-1.0)
    _divide_by_transposed(early_OI, first)


def _divide_by(A_OI: torch.Tensor, divisor_II: torch.Tensor) -> None:
    """Overwrites A by A R⁻¹."""
    if divisor_II.shape[0] <= LEAF_COLUMNS:
        A_OI.copy_(times_transposed(A_OI, divisor_II.T, Work.TARGET, halves=Halves(right=Half.LOWER)))
        return
    first, above, second = halves_of(divisor_II)
    early_OI, late_OI = A_OI[:, : first.shape[0]], A_OI[:, first.shape[0] :]
    _divide_by(early_OI, first)
    add_product(late_OI, rounded(early_OI), above.T, Work.TARGET, factor=-1.0)
    _divide_by(late_OI, second)
