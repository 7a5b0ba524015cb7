"""Damps a Hessian and returns U, the upper Cholesky factor of its inverse: UᵀU = (H + λI)⁻¹.

H+λI = RRᵀ with R upper, factorized from its last column to its first, gives U = R⁻¹: one factorization and one
triangular inverse, where factorizing the inverse takes twice the work and loses more digits. Both are done at once by
halves: with A = [[B, C], [·, D]] and Z the inverse factor of D, Y = C Zᵀ is the factor's upper right part, B - YYᵀ what
is left to factorize, to X, and the inverse factor is [[X, -X Y Z], [0, Z]]. Nearly all of it is products of triangles.
Each part takes the place of the one that it is made of, since the widest linear's matrices are large: what is needed
beside A is a third of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from core.blocking import LEAF_COLUMNS
from core.errors import NumericalError
from core.kernels.halves import Half, Halves
from core.profile import Work, span
from core.solver.multiplication import add_product, multiply_into, times_transposed

# Each failed factorization is tried again in float64, then with this many times the damping.
DAMP_STEP = 4.0
LARGEST_DAMP_PERCENT = 1.0
ALIGNED = 64
ROWS_AT_ONCE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class InverseFactor:
    """U_II: float32 [I, I], upper. damp_percent: the fraction of mean diag H really used. steps: what failed before."""

    U_II: torch.Tensor
    damp_percent: float
    steps: tuple[str, ...]


@span(Work.FACTORIZATION)
def factorize(H_II: torch.Tensor, damp_percent: float, inputs_I: torch.Tensor | None = None) -> InverseFactor:
    """Returns the factor of the damped inverse; H is symmetric, float32, and is not changed.

    inputs_I: the order in which U has H's inputs; by default H's own.
    A dead input (H_ii = 0) gets the mean diagonal as its curvature: its weights round to nearest and move nothing.
    Raises NumericalError when float32, float64 and every damping step below 1 fail.
    """
    diagonal_I = H_II.diagonal()
    mean_diagonal = float(diagonal_I.mean())
    if not bool(torch.isfinite(diagonal_I).all()):
        raise NumericalError("hessian", "The Hessian holds values that are not finite.")
    order_I = torch.arange(H_II.shape[0], device=H_II.device) if inputs_I is None else inputs_I
    steps: list[str] = []
    damp = damp_percent
    while damp < LARGEST_DAMP_PERCENT or damp == damp_percent:
        for dtype in (torch.float32, torch.float64):
            U_II = _try_factor(_ordered(H_II, order_I, dtype), damp * mean_diagonal, mean_diagonal)
            if U_II is not None:
                return InverseFactor(U_II=U_II, damp_percent=damp, steps=tuple(steps))
            steps.append(f"{str(dtype).removeprefix('torch.')} failed at damp_percent {damp:g}")
        damp *= DAMP_STEP
    raise NumericalError("hessian", f"The Hessian could not be factorized ({'; '.join(steps)}).")


def invert_factor(A_II: torch.Tensor) -> bool:
    """Overwrites A by U = R⁻¹ with A = RRᵀ, R and U upper; False where A is not positive definite, and is lost."""
    if A_II.shape[0] <= LEAF_COLUMNS:
        return invert_leaf(A_II)
    first, above, second = halves_of(A_II)
    if not invert_factor(second):
        return False
    crossed = times_transposed(above, second, Work.FACTORIZATION, halves=Halves(right=Half.UPPER))
    add_product(first, crossed, crossed, Work.FACTORIZATION, factor=-1.0, halves=Halves(wanted=Half.UPPER))
    if not invert_factor(first):
        return False
    multiply_into(above, crossed, second.T, Work.FACTORIZATION, halves=Halves(right=Half.LOWER))
    multiply_into(crossed, first, above.T, Work.FACTORIZATION, factor=-1.0, halves=Halves(left=Half.UPPER))
    above.copy_(crossed)
    A_II[first.shape[0] :, : first.shape[0]] = 0
    return True


def halves_of(A_II: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the upper left, upper right and lower right part of a matrix that is wider than a leaf."""
    half = -(-A_II.shape[0] // (2 * ALIGNED)) * ALIGNED
    return A_II[:half, :half], A_II[:half, half:], A_II[half:, half:]


def invert_leaf(A_II: torch.Tensor) -> bool:
    """Does the same by the library, which factorizes from the first column on; only A's upper half is read."""
    L_II, info = torch.linalg.cholesky_ex(A_II.flip(0, 1))
    identity_II = torch.eye(A_II.shape[0], dtype=A_II.dtype, device=A_II.device)
    A_II.copy_(torch.linalg.solve_triangular(L_II, identity_II, upper=False).flip(0, 1))
    return not int(info)


def _ordered(H_II: torch.Tensor, order_I: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns H in an order of its inputs, in memory of its own."""
    ordered_II = torch.empty_like(H_II, dtype=dtype)
    for rows, taken_I in zip(torch.split(ordered_II, ROWS_AT_ONCE), torch.split(order_I, ROWS_AT_ONCE), strict=True):
        rows.copy_(torch.index_select(torch.index_select(H_II, 0, taken_I), 1, order_I))
    return ordered_II


def _try_factor(damped_II: torch.Tensor, damp: float, mean_diagonal: float) -> torch.Tensor | None:
    """Returns U from H, which is overwritten."""
    diagonal_I = damped_II.diagonal()
    diagonal_I[diagonal_I == 0] = mean_diagonal if mean_diagonal > 0 else 1.0
    diagonal_I += damp
    if not invert_factor(damped_II) or not all(math.isfinite(float(extreme)) for extreme in torch.aminmax(damped_II)):
        return None
    return damped_II.float()
