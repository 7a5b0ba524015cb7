from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.kernels import numba_refine, numba_solver
from core.kernels.columns import RefinedColumns
from core.solver import grid, reference
from core.solver.factor import factorize
from core.solver.rtn import round_to_nearest
from tests.core.solver.problems import correlated_inputs, hessian_of, random_weight


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("width", [1, 7, 64])
def test_the_column_kernel_equals_the_reference(bits: int, width: int) -> None:
    """Compiled and plain column solves give the same codes, but for ties within float rounding."""
    W_OC = random_weight(33, width)
    U_CC = factorize(hessian_of(correlated_inputs(200, width)), 0.05).divisor.inverse(0, width)
    fitted = grid.minmax_grid(W_OC[:, None, :], bits=bits, sym=False)
    scales = fitted.scales_OG.expand(-1, width).contiguous()
    zeros = fitted.zeros_OG.expand(-1, width).contiguous()
    codes, residuals = numba_solver.solve_columns(W_OC.clone(), U_CC, scales, zeros, grid.top_code(bits))
    expected, expected_residuals = reference.solve_columns(W_OC.clone(), U_CC, scales, zeros, grid.top_code(bits))
    same = codes == expected
    assert float(same.float().mean()) > 0.999
    rows = same.all(dim=1)
    torch.testing.assert_close(residuals[rows], expected_residuals[rows], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("width", [1, 24])
@pytest.mark.parametrize("bits", [2, 4])
def test_the_code_refinement_kernel_equals_the_reference(bits: int, width: int) -> None:
    """Compiled and plain refinement make the same moves, but for ties within float rounding; none leaves the grid.

    Both work on the middle columns of larger matrices, after a step of some rows' scales, and keep the differences.
    """
    target_OC, H_CC = random_weight(69, width), hessian_of(correlated_inputs(300, width))
    start = round_to_nearest(target_OC, bits=bits, group_size=width, sym=False)
    # From codes that are off, so that there is something to move.
    wrong = replace(start, codes_OI=start.codes_OI // 2)
    step_O = wrong.scales_OG[:, 0].float() * (torch.arange(69) % 3 == 0) / 8
    results = []
    for run in (numba_refine.refine_codes, reference.refine_codes):
        codes_OI, difference_OI = torch.full((69, width + 2), 0.5), torch.full((69, width + 2), 0.5)
        columns = RefinedColumns(
            codes_OC=codes_OI[:, 1:-1],
            difference_OC=difference_OI[:, 1:-1],
            zeros_O=wrong.zeros_OG[:, 0].float(),
            scales_O=wrong.scales_OG[:, 0].float(),
            moved_O=torch.zeros(69, dtype=torch.bool),
        )
        columns.codes_OC.copy_(wrong.codes_OI)
        columns.difference_OC.copy_(wrong.dequantize() - target_OC)
        gradient_OC, image_OC = columns.difference_OC @ H_CC, columns.levels_OC @ H_CC
        columns.scales_O.add_(step_O)
        moves_OC = run(columns, gradient_OC, image_OC, step_O, H_CC, grid.top_code(bits))
        difference_OC = columns.scales_O[:, None] * columns.levels_OC - target_OC
        torch.testing.assert_close(columns.difference_OC, difference_OC)
        assert torch.equal(columns.moved_O, (step_O != 0) | (moves_OC != 0).any(dim=1))
        assert bool((codes_OI[:, [0, -1]] == 0.5).all())
        results.append(columns.codes_OC)
    assert float((results[0] == results[1]).float().mean()) > 0.99
    assert float((results[0] != wrong.codes_OI).float().mean()) > 0.3
    assert float(results[0].max()) <= grid.top_code(bits)


@pytest.mark.parametrize("width", [1, 17, 130])
def test_the_scale_kernel_equals_the_reference(width: int) -> None:
    """Scales of either sign move alike, and stay where their codes want no or the other sign; of views as well."""
    target_OC, H_CC = random_weight(69, width), hessian_of(correlated_inputs(300, width))
    weight = round_to_nearest(target_OC, bits=3, group_size=width, sym=True)
    codes_OI, difference_OI = torch.zeros(69, width + 1), torch.zeros(69, width + 1)
    found = []
    for run in (numba_refine.step_scales, reference.step_scales):
        columns = RefinedColumns(
            codes_OC=codes_OI[:, 1:],
            difference_OC=difference_OI[:, 1:],
            zeros_O=weight.zeros_OG[:, 0].float(),
            scales_O=weight.scales_OG[:, 0].float(),
            moved_O=torch.zeros(69, dtype=torch.bool),
        )
        columns.codes_OC.copy_(weight.codes_OI)
        columns.codes_OC[:5] = 4  # no level at all
        columns.codes_OC[5:10] = 7 - columns.codes_OC[5:10]
        columns.difference_OC.copy_(columns.scales_O[:, None] * columns.levels_OC - target_OC)
        columns.difference_OC[10] = torch.inf
        gradient_OC, image_OC = columns.difference_OC @ H_CC, columns.levels_OC @ H_CC
        before_O = columns.scales_O.clone()
        step_O = run(columns, gradient_OC, image_OC)
        assert torch.equal(columns.scales_O, before_O + step_O)
        assert torch.equal(columns.scales_O, columns.scales_O.half().float())
        assert not bool(step_O[:5].any())
        assert not bool(step_O[10])
        found.append(step_O)
    assert float((found[0] == found[1]).float().mean()) > 0.95
    torch.testing.assert_close(found[0], found[1], rtol=0.01, atol=1e-3)
    assert float((found[0] != 0).float().mean()) > 0.3


@pytest.mark.parametrize("bits", [2, 4])
def test_the_search_kernel_equals_the_reference(bits: int) -> None:
    """Compiled and plain searches choose candidates of equal loss, among scales of both signs."""
    W_OGS = grid.in_groups(random_weight(21, 72), 24)
    cost_GS = torch.rand(3, 24, generator=torch.Generator().manual_seed(5))
    widest = grid.minmax_grid(W_OGS, bits=bits, sym=True)
    scales = grid.stored_scale(widest.scales_OG[..., None] * torch.linspace(1.0, 0.4, 13))
    scales[..., ::2] *= -1
    best = numba_solver.best_candidate(W_OGS, cost_GS, scales, 2 ** (bits - 1), grid.top_code(bits))
    expected = reference.best_candidate(W_OGS, cost_GS, scales, 2 ** (bits - 1), grid.top_code(bits))
    assert float((best == expected).float().mean()) > 0.98
    assert len(best.unique()) > 3


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_search_for_zeros_equals_the_reference(bits: int) -> None:
    """Compiled and plain walks end at the same scale and zero, but for ties within float rounding."""
    W_OGS = grid.in_groups(random_weight(21, 72), 24)
    cost_GS = torch.rand(3, 24, generator=torch.Generator().manual_seed(6))
    start = grid.minmax_grid(W_OGS, bits=bits, sym=False)
    scales = grid.stored_scale(start.scales_OG[..., None] * torch.linspace(1.0, 0.4, 13))
    found = numba_solver.best_scale_and_zero(W_OGS, cost_GS, scales, start.zeros_OG, grid.top_code(bits))
    expected = reference.best_scale_and_zero(W_OGS, cost_GS, scales, start.zeros_OG, grid.top_code(bits))
    for compiled, plain in zip(found, expected, strict=True):
        assert float((compiled == plain).float().mean()) > 0.98
