"""Damps a Hessian and returns R, upper, with RRᵀ = H + λI: the factor that the column solve goes by.

A Hessian that cannot be factorized is tried again in float64, then under more damping.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from core.errors import NumericalError
from core.profile import Work, span
from core.solver.division import Divisor

# Each failed factorization is tried again in float64, then with this many times the damping.
DAMP_STEP = 4.0
LARGEST_DAMP_PERCENT = 1.0
ROWS_AT_ONCE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class DampedFactor:
    """divisor: of H + λI, float32. damp_percent: the fraction of mean diag H really used. steps: what failed before."""

    divisor: Divisor
    damp_percent: float
    steps: tuple[str, ...]


@span(Work.FACTORIZATION)
def factorize(H_II: torch.Tensor, damp_percent: float, inputs_I: torch.Tensor | None = None) -> DampedFactor:
    """Returns the damped Hessian's factor; H is symmetric, float32, and is not changed.

    inputs_I: the order in which R has H's inputs; by default H's own.
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
            divisor = _try_factor(_ordered(H_II, order_I, dtype), damp * mean_diagonal, mean_diagonal)
            if divisor is not None:
                return DampedFactor(divisor=divisor, damp_percent=damp, steps=tuple(steps))
            steps.append(f"{str(dtype).removeprefix('torch.')} failed at damp_percent {damp:g}")
        damp *= DAMP_STEP
    raise NumericalError("hessian", f"The Hessian could not be factorized ({'; '.join(steps)}).")


def _ordered(H_II: torch.Tensor, order_I: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns H in an order of its inputs, in memory of its own."""
    ordered_II = torch.empty_like(H_II, dtype=dtype)
    for rows, taken_I in zip(torch.split(ordered_II, ROWS_AT_ONCE), torch.split(order_I, ROWS_AT_ONCE), strict=True):
        rows.copy_(torch.index_select(torch.index_select(H_II, 0, taken_I), 1, order_I))
    return ordered_II


def _try_factor(damped_II: torch.Tensor, damp: float, mean_diagonal: float) -> Divisor | None:
    """Returns R from H, which is overwritten."""
    diagonal_I = damped_II.diagonal()
    diagonal_I[diagonal_I == 0] = mean_diagonal if mean_diagonal > 0 else 1.0
    diagonal_I += damp
    divisor = Divisor.of(damped_II)
    if divisor is None or not all(math.isfinite(float(end)) for end in torch.aminmax(damped_II)):
        return None
    return divisor.in_float32()
