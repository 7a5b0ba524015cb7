"""Solves problems with the Triton kernel and with the reference; prints how they agree. Run with TRITON_INTERPRET=1."""

from __future__ import annotations

import json
import sys

from core.kernels import triton_solver
from core.solver import grid, reference
from core.solver.factor import factorize
from tests.core.solver.problems import correlated_inputs, hessian_of, random_weight


def agreement(bits: int, rows: int, width: int) -> dict[str, float]:
    """Returns the share of equal codes and the largest difference of residuals in rows whose codes are all equal."""
    W_OC = random_weight(rows, width)
    U_CC = factorize(hessian_of(correlated_inputs(200, width)), 0.05).divisor.inverse(0, width)
    fitted = grid.minmax_grid(W_OC[:, None, :], bits=bits, sym=False)
    scales, zeros = (part.expand(-1, width).contiguous() for part in (fitted.scales_OG, fitted.zeros_OG))
    codes, residuals = triton_solver.solve_columns(W_OC.clone(), U_CC, scales, zeros, grid.top_code(bits))
    expected, expected_residuals = reference.solve_columns(W_OC.clone(), U_CC, scales, zeros, grid.top_code(bits))
    same = (codes == expected).all(dim=1)
    distance = (residuals - expected_residuals)[same].abs().max()
    return {"codes": float((codes == expected).float().mean()), "residuals": float(distance)}


if __name__ == "__main__":
    problems = [(bits, rows, width) for bits in (2, 4, 8) for rows, width in ((1, 1), (33, 7), (20, 64))]
    json.dump({str(problem): agreement(*problem) for problem in problems}, sys.stdout)
