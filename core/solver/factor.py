"""Damps a Hessian and returns U, the upper Cholesky factor of its inverse: UᵀU = (H + λI)⁻¹.

With J the reversal of rows and columns, J(H+λI)J = MMᵀ (M lower) gives U = J M⁻¹ J: one factorization and one
triangular inverse, where factorizing the inverse takes twice the work and loses more digits. Both are done at once by
halves: with A = [[B, ·], [C, D]] and X the inverse factor of B, Y = C Xᵀ is the factor's lower left part, D - YYᵀ what
is left to factorize, to Z, and the inverse factor is [[X, 0], [-Z Y X, Z]]. Nearly all of it is matrix products. Each
part takes the place of the one that it is made of, since the widest linear's matrices are large: what is needed beside
A is three quarters of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from core.errors import NumericalError
from core.matmul import parts_of, times_lower_transposed, times_transposed
from core.profile import Work, span

# Each failed factorization is tried again in float64, then with this many times the damping.
DAMP_STEP = 4.0
LARGEST_DAMP_PERCENT = 1.0
# Up to this width the library's own factorization is as fast as products are.
LEAF = 192
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
            U_II = _try_factor(_reversed(H_II, order_I, dtype), damp * mean_diagonal, mean_diagonal)
            if U_II is not None:
                return InverseFactor(U_II=U_II, damp_percent=damp, steps=tuple(steps))
            steps.append(f"{str(dtype).removeprefix('torch.')} failed at damp_percent {damp:g}")
        damp *= DAMP_STEP
    raise NumericalError("hessian", f"The Hessian could not be factorized ({'; '.join(steps)}).")


def invert_factor(A_II: torch.Tensor) -> bool:
    """Overwrites A by L⁻¹ with A = LLᵀ, L lower; False where A is not positive definite in its dtype, and is lost."""
    width = A_II.shape[0]
    if width <= LEAF:
        L_II, info = torch.linalg.cholesky_ex(A_II)
        identity_II = torch.eye(width, dtype=A_II.dtype, device=A_II.device)
        A_II.copy_(torch.linalg.solve_triangular(L_II, identity_II, upper=False))
        return not int(info)
    half = -(-width // (2 * ALIGNED)) * ALIGNED
    first, below, second = A_II[:half, :half], A_II[half:, :half], A_II[half:, half:]
    if not invert_factor(first):
        return False
    factor = times_lower_transposed(below, first, Work.FACTORIZATION)
    for part in parts_of(width - half):
        until = slice(part.stop)
        second[part, until] -= times_transposed(factor[part], factor[until], Work.FACTORIZATION)
    if not invert_factor(second):
        return False
    crossed = torch.empty_like(factor.T, memory_format=torch.contiguous_format)
    for part in parts_of(half):
        since = slice(part.start, None)
        crossed[part] = times_transposed(first[since, part].T, factor[:, since], Work.FACTORIZATION)
    del factor
    for part in parts_of(width - half):
        until = slice(part.stop)
        below[part] = times_transposed(second[part, until], crossed[:, until], Work.FACTORIZATION).neg_()
    A_II[:half, half:] = 0
    return True


def _reversed(H_II: torch.Tensor, order_I: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns J H J in an order of its inputs, in memory of its own."""
    reversed_I = order_I.flip(0)
    reversed_II = torch.empty_like(H_II, dtype=dtype)
    for rows in torch.split(torch.arange(len(reversed_I), device=H_II.device), ROWS_AT_ONCE):
        reversed_II[rows] = H_II[reversed_I[rows]][:, reversed_I].to(dtype)
    return reversed_II


def _try_factor(damped_II: torch.Tensor, damp: float, mean_diagonal: float) -> torch.Tensor | None:
    """Returns U from J H J, which is overwritten."""
    diagonal_I = damped_II.diagonal()
    diagonal_I[diagonal_I == 0] = mean_diagonal if mean_diagonal > 0 else 1.0
    diagonal_I += damp
    if not invert_factor(damped_II) or not all(math.isfinite(float(extreme)) for extreme in torch.aminmax(damped_II)):
        return None
    _reverse(damped_II)
    return damped_II.float()


def _reverse(A_II: torch.Tensor) -> None:
    """Turns A into J A J in its place: the rows of one end against those of the other, each the other way round."""
    width = A_II.shape[0]
    for start in range(0, width // 2, ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, width // 2)
        upper, lower = A_II[start:stop], A_II[width - stop : width - start]
        turned = upper.flip(0, 1)
        upper.copy_(lower.flip(0, 1))
        lower.copy_(turned)
    if width % 2:
        middle = A_II[width // 2]
        middle.copy_(middle.flip(0))
