from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from core.configs import GPTQConfig, Order
from core.solver.gptq import prepare_set, solve
from core.solver.grid import encode
from core.solver.refine import refine
from core.solver.rtn import round_to_nearest
from core.weights import QuantizedWeight
from tests.core.solver.problems import correlated_inputs, exact_loss, hessian_of, random_weight


def _loss(weight: QuantizedWeight, target_OI: torch.Tensor, H_II: torch.Tensor, damp: float) -> float:
    damped_II = H_II + damp * torch.eye(H_II.shape[0])
    return exact_loss(weight.dequantize() - target_OI, damped_II)


@pytest.mark.parametrize("order", [Order.DESC_ACT, Order.DESC_ACT_STATIC])
@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_no_round_raises_the_training_loss(bits: int, sym: bool, order: Order) -> None:
    """Each further round leaves the loss that is solved for where it was or lower, in any layout of groups."""
    target_OI, H_II = random_weight(32, 96), hessian_of(correlated_inputs(500, 96))
    config = GPTQConfig(bits=bits, group_size=32, sym=sym, order=order)
    solved = solve(target_OI, prepare_set(H_II, config), config).weight
    rounds = [solved, *(refine(solved, target_OI, H_II, damp=0.02, rounds=rounds) for rounds in (1, 2, 4))]
    losses = [_loss(weight, target_OI, H_II, 0.02) for weight in rounds]
    assert all(after <= before * (1 + 1e-5) for before, after in itertools.pairwise(losses))
    assert losses[1] < 0.99 * losses[0]


@pytest.mark.parametrize("group_size", [32, -1])
def test_groups_wider_than_an_update_are_refined_alike(group_size: int) -> None:
    """A group that is taken in several updates ends where one update over all of it ends."""
    target_OI, H_II = random_weight(16, 384), hessian_of(correlated_inputs(900, 384))
    start = round_to_nearest(target_OI, bits=3, group_size=group_size, sym=True)
    by_parts = refine(start, target_OI, H_II, damp=0.01, rounds=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("core.solver.refine.UPDATE_COLUMNS", 1000)
        at_once = refine(start, target_OI, H_II, damp=0.01, rounds=2)
    assert float((by_parts.codes_OI == at_once.codes_OI).float().mean()) > 0.99
    assert _loss(by_parts, target_OI, H_II, 0.01) < 0.8 * _loss(start, target_OI, H_II, 0.01)


def test_refined_rounding_comes_near_the_column_solve() -> None:
    """From plain rounding, refinement alone takes away most of what the column solve takes away."""
    target_OI, H_II = random_weight(32, 64), hessian_of(correlated_inputs(500, 64))
    rounded = round_to_nearest(target_OI, bits=3, group_size=32, sym=True)
    refined = refine(rounded, target_OI, H_II, damp=0.01, rounds=8)
    assert _loss(refined, target_OI, H_II, 0.01) < 0.6 * _loss(rounded, target_OI, H_II, 0.01)


def test_what_is_stored_stays_on_the_grid() -> None:
    """Codes stay in range, scales are float16 and keep their signs, zeros and groups stay; nothing given is changed."""
    target_OI, H_II = random_weight(24, 64), hessian_of(correlated_inputs(300, 64))
    config = GPTQConfig(bits=3, group_size=16)
    solved = solve(target_OI, prepare_set(H_II, config), config).weight
    before = replace(solved, codes_OI=solved.codes_OI.clone(), scales_OG=solved.scales_OG.clone())
    refined = refine(solved, target_OI, H_II, damp=0.01, rounds=4)
    assert torch.equal(solved.codes_OI, before.codes_OI)
    assert torch.equal(solved.scales_OG, before.scales_OG)
    assert int(refined.codes_OI.max()) <= 7
    assert bool((solved.scales_OG < 0).any())
    assert torch.equal(refined.scales_OG < 0, solved.scales_OG < 0)
    assert torch.equal(refined.zeros_OG, solved.zeros_OG)


@pytest.mark.parametrize("bits", [2, 3])
def test_zeros_move_where_that_lowers_the_loss(bits: int) -> None:
    """From zeros that are off by one, refinement that may move them ends clearly lower than with the zeros held."""
    target_OI, H_II = random_weight(32, 32) + 0.04, hessian_of(correlated_inputs(300, 32))
    start = round_to_nearest(target_OI, bits=bits, group_size=16, sym=False)
    zeros_OG = (start.zeros_OG.int() - 1).clamp(min=0).to(torch.uint8)
    group_I = start.g_idx_I.long()
    codes_OI = encode(target_OI, start.scales_OG.float()[:, group_I], zeros_OG.float()[:, group_I], bits)
    wrong = replace(start, zeros_OG=zeros_OG, codes_OI=codes_OI)
    moved, held = (refine(weight, target_OI, H_II, damp=0.0, rounds=8) for weight in (wrong, replace(wrong, sym=True)))
    assert torch.equal(held.zeros_OG, zeros_OG)
    assert not torch.equal(moved.zeros_OG, zeros_OG)
    assert int(moved.zeros_OG.max()) < 2**bits
    assert _loss(moved, target_OI, H_II, 0.0) < 0.85 * _loss(held, target_OI, H_II, 0.0)


def test_rounding_has_nothing_to_refine_under_an_isotropic_hessian() -> None:
    """With H = c·I and least-squares scales, nearest codes are the best ones: a second run changes nothing."""
    target_OI = random_weight(16, 32)
    once = refine(
        round_to_nearest(target_OI, bits=4, group_size=8, sym=True), target_OI, torch.eye(32), damp=0, rounds=50
    )
    twice = refine(once, target_OI, torch.eye(32), damp=0, rounds=1)
    assert torch.equal(once.codes_OI, twice.codes_OI)
    assert torch.equal(once.scales_OG, twice.scales_OG)


def test_a_dead_input_keeps_its_nearest_code() -> None:
    """An input without curvature of its own is rounded to nearest by the damping alone."""
    target_OI, H_II = random_weight(8, 32), hessian_of(correlated_inputs(200, 32))
    H_II[5], H_II[:, 5] = 0, 0
    refined = refine(round_to_nearest(target_OI, bits=4, group_size=8, sym=True), target_OI, H_II, damp=0.01, rounds=3)
    step = refined.scales_OG[:, 0].float().abs()
    inside = target_OI[:, 5].abs() < 7 * step
    difference = (refined.dequantize()[:, 5] - target_OI[:, 5]).abs()
    assert bool((difference[inside] <= 0.51 * step[inside]).all())
