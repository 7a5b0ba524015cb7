from __future__ import annotations

import pytest
import torch

from core.solver import grid, numba_kernels, reference
from core.solver.factor import factorize
from tests.core.solver.problems import correlated_inputs, hessian_of, random_weight


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("width", [1, 7, 64])
def test_the_column_kernel_equals_the_reference(bits: int, width: int) -> None:
    """Compiled and plain column solves give the same codes, but for ties within float rounding."""
    W_OC = random_weight(33, width)
    U_CC = factorize(hessian_of(correlated_inputs(200, width)), 0.05).U_II
    fitted = grid.minmax_grid(W_OC[:, None, :], bits=bits, sym=False)
    scales = fitted.scales_OG.expand(-1, width).contiguous()
    zeros = fitted.zeros_OG.expand(-1, width).contiguous()
    codes, residuals = numba_kernels.solve_columns(W_OC.clone(), U_CC, scales, zeros, grid.top_code(bits))
    expected, expected_residuals = reference.solve_columns(W_OC.clone(), U_CC, scales, zeros, grid.top_code(bits))
    same = codes == expected
    assert float(same.float().mean()) > 0.999
    rows = same.all(dim=1)
    torch.testing.assert_close(residuals[rows], expected_residuals[rows], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("bits", [2, 4])
def test_the_search_kernel_equals_the_reference(bits: int, sym: bool) -> None:
    """Compiled and plain searches choose candidates of equal loss."""
    W_OGS = grid.in_groups(random_weight(21, 72), 24)
    cost_GS = torch.rand(3, 24, generator=torch.Generator().manual_seed(5))
    low, high = W_OGS.amin(-1).clamp(max=0), W_OGS.amax(-1).clamp(min=0)
    factors = torch.linspace(1.0, 0.4, 13)
    scales = grid.stored_scale((high - low)[..., None] * factors / grid.top_code(bits))
    zeros = torch.round(-low[..., None] * factors / scales) if not sym else torch.full_like(scales, 2.0 ** (bits - 1))
    best = numba_kernels.best_candidate(W_OGS, cost_GS, scales, zeros, grid.top_code(bits))
    expected = reference.best_candidate(W_OGS, cost_GS, scales, zeros, grid.top_code(bits))
    assert float((best == expected).float().mean()) > 0.98
