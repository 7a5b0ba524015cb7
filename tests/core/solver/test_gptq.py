from __future__ import annotations

import pytest
import torch

from core.configs import GPTQConfig, Order, ScaleSearch
from core.solver import grid
from core.solver.gptq import prepare_set, solve
from core.solver.rtn import round_to_nearest
from core.weights import QuantizedWeight
from tests.core.solver.problems import correlated_inputs, exact_loss, hessian_of, random_weight

ORDERS = list(Order)


def _solve(W_OI: torch.Tensor, H_II: torch.Tensor, *, update: int = 128, **options: object) -> QuantizedWeight:
    config = GPTQConfig(**{"bits": 4, "group_size": 16, **options})  # type: ignore[arg-type]  # test options
    return solve(W_OI, prepare_set(H_II, config), config, update=update).weight


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq_loses_on_weights_and_wins_on_outputs(bits: int, order: Order) -> None:
    """Against rounding on the same min-max scales, GPTQ is farther from the weights and nearer to the outputs."""
    X_NI, W_OI = correlated_inputs(600, 64), random_weight(40, 64)
    H_II = hessian_of(X_NI)
    solved = _solve(W_OI, H_II, bits=bits, order=order, scale_search="minmax").dequantize()
    rounded = round_to_nearest(W_OI, bits=bits, group_size=16, sym=True).dequantize()
    assert float((solved - W_OI).square().sum()) > float((rounded - W_OI).square().sum())
    assert exact_loss(solved - W_OI, H_II) < 0.9 * exact_loss(rounded - W_OI, H_II)
    outputs = [((Q - W_OI) @ X_NI.T).square().sum() for Q in (solved, rounded)]
    assert float(outputs[0]) < 0.9 * float(outputs[1])


@pytest.mark.parametrize("order", ORDERS)
def test_with_an_isotropic_hessian_gptq_is_rounding(order: Order) -> None:
    """With H = c·I no column can make up for another, so the codes are those of round-to-nearest."""
    W_OI = random_weight(24, 64)
    solved = _solve(W_OI, torch.eye(64) * 3.7, order=order, scale_search="minmax")
    rounded = round_to_nearest(W_OI, bits=4, group_size=16, sym=True)
    assert torch.equal(solved.codes_OI, rounded.codes_OI)
    assert torch.equal(solved.scales_OG, rounded.scales_OG)


@pytest.mark.parametrize("search", list(ScaleSearch))
@pytest.mark.parametrize("order", ORDERS)
def test_the_result_does_not_depend_on_the_update_width(order: Order, search: ScaleSearch) -> None:
    """Scales come from weights that carry every earlier residual, so any update width gives the same codes."""
    W_OI, H_II = random_weight(24, 96), hessian_of(correlated_inputs(500, 96))
    wide = _solve(W_OI, H_II, update=96, order=order, scale_search=search, group_size=32)
    for update in (1, 8, 24, 40):
        narrow = _solve(W_OI, H_II, update=update, order=order, scale_search=search, group_size=32)
        assert float((narrow.codes_OI == wide.codes_OI).float().mean()) > 0.995


def test_desc_act_is_the_permuted_problem() -> None:
    """Solving by falling diagonal equals solving the permuted weights in natural order and permuting back."""
    W_OI, H_II = random_weight(16, 64), hessian_of(correlated_inputs(400, 64))
    order = torch.argsort(H_II.diagonal(), descending=True, stable=True)
    sorted_solve = _solve(W_OI, H_II, order=Order.DESC_ACT)
    permuted = _solve(W_OI[:, order], H_II[order][:, order], order=Order.NATURAL)
    assert torch.equal(sorted_solve.codes_OI[:, order], permuted.codes_OI)
    assert torch.equal(sorted_solve.scales_OG, permuted.scales_OG)
    assert torch.equal(sorted_solve.g_idx_I[order], permuted.g_idx_I)
    assert not sorted_solve.monotone_groups


def test_group_aware_order_is_the_problem_permuted_by_groups() -> None:
    """Groups by mean diagonal, inputs in them by theirs: the permuted problem's codes and scales, moved back."""
    W_OI, H_II = random_weight(16, 64), hessian_of(correlated_inputs(400, 64))
    diagonal = H_II.diagonal().tolist()
    groups = sorted(range(4), key=lambda group: -sum(diagonal[group * 16 : group * 16 + 16]))
    inputs = [i for g in groups for i in sorted(range(g * 16, g * 16 + 16), key=lambda i: -diagonal[i])]
    assert inputs != list(range(64))
    aware = _solve(W_OI, H_II, order=Order.ACT_GROUP_AWARE)
    permuted = _solve(W_OI[:, inputs], H_II[inputs][:, inputs], order=Order.NATURAL)
    assert torch.equal(aware.codes_OI[:, inputs], permuted.codes_OI)
    assert torch.equal(aware.scales_OG[:, groups], permuted.scales_OG)


@pytest.mark.parametrize("order", [order for order in ORDERS if order is not Order.DESC_ACT])
def test_orders_that_are_free_at_inference_keep_contiguous_groups(order: Order) -> None:
    """Every order but desc_act leaves g_idx = i // group_size."""
    assert _solve(random_weight(8, 64), hessian_of(correlated_inputs(200, 64)), order=order).monotone_groups


@pytest.mark.parametrize("order", ORDERS)
def test_the_residuals_add_up_to_the_damped_loss(order: Order) -> None:
    """Σ e² = tr((W-Ŵ)(H+λI)(W-Ŵ)ᵀ), the identity that the algorithm is derived from."""
    W_OI, H_II = random_weight(32, 64), hessian_of(correlated_inputs(500, 64))
    config = GPTQConfig(bits=3, group_size=16, order=order, damp_percent=0.02)
    solution = solve(W_OI, prepare_set(H_II, config), config)
    difference = W_OI - solution.weight.dequantize()
    damped = H_II + 0.02 * H_II.diagonal().mean() * torch.eye(64)
    assert solution.damped_loss == pytest.approx(exact_loss(difference, damped), rel=1e-3)


def test_searched_scales_beat_minmax_on_outputs() -> None:
    """Choosing scales by their curvature-weighted cost lowers the loss that counts, at 3 bits by a margin."""
    W_OI, H_II = random_weight(64, 64), hessian_of(correlated_inputs(800, 64))
    losses = {
        search: exact_loss(_solve(W_OI, H_II, bits=3, scale_search=search).dequantize() - W_OI, H_II)
        for search in ScaleSearch
    }
    assert losses[ScaleSearch.CURVATURE] < 0.95 * losses[ScaleSearch.MINMAX]
    assert losses[ScaleSearch.HESSIAN] < losses[ScaleSearch.MINMAX]


@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("group_size", [-1, 8, 32])
def test_shapes_ranges_and_dtypes(group_size: int, sym: bool) -> None:
    """Codes and zeros stay on the grid, scales are the stored float16 values, groups are as many as asked for."""
    weight = _solve(
        random_weight(10, 64), hessian_of(correlated_inputs(200, 64)), group_size=group_size, sym=sym, bits=3
    )
    groups = 1 if group_size == -1 else 64 // group_size
    assert weight.codes_OI.shape == (10, 64)
    assert weight.scales_OG.shape == weight.zeros_OG.shape == (10, groups)
    assert (weight.codes_OI.dtype, weight.scales_OG.dtype, weight.zeros_OG.dtype) == (
        torch.uint8,
        torch.float16,
        torch.uint8,
    )
    assert int(weight.codes_OI.max()) <= grid.top_code(3)
    assert int(weight.zeros_OG.max()) <= grid.top_code(3)


def test_the_input_weight_is_not_changed() -> None:
    """The solver works on a copy."""
    W_OI = random_weight(8, 32)
    before = W_OI.clone()
    _solve(W_OI, hessian_of(correlated_inputs(100, 32)))
    assert torch.equal(W_OI, before)
