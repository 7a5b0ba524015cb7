from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import NumericalError
from core.solver import grid
from tests.core.solver.problems import random_weight


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("sym", [True, False])
def test_a_minmax_grid_reaches_every_weight(bits: int, sym: bool) -> None:
    """Every weight lies within half a step of a code (one step at the clipped end of a symmetric grid)."""
    W_OGS = grid.in_groups(random_weight(20, 64), 16)
    fitted = grid.minmax_grid(W_OGS, bits=bits, sym=sym)
    scales, zeros = fitted.scales_OG[..., None], fitted.zeros_OG[..., None]
    codes = (torch.round(W_OGS / scales) + zeros).clamp(0, grid.top_code(bits))
    steps = ((W_OGS - scales * (codes - zeros)) / scales).abs()
    assert float(steps.max()) <= 1.01
    assert torch.equal(fitted.scales_OG, fitted.scales_OG.half().float())
    if sym:
        assert bool((fitted.zeros_OG == 2 ** (bits - 1)).all())


def test_a_searched_grid_is_never_worse_than_minmax_in_its_own_metric() -> None:
    """The full range is one of the candidates, so the weighted squared difference cannot grow."""
    W_OGS = grid.in_groups(random_weight(30, 96), 32)
    cost_GS = torch.rand(3, 32, generator=torch.Generator().manual_seed(3)) + 0.01
    for sym in (True, False):
        losses = []
        for fitted in (
            grid.minmax_grid(W_OGS, bits=3, sym=sym),
            grid.searched_grid(W_OGS, cost_GS, bits=3, sym=sym),
        ):
            scales, zeros = fitted.scales_OG[..., None], fitted.zeros_OG[..., None]
            codes = (torch.round(W_OGS / scales) + zeros).clamp(0, 7)
            losses.append((cost_GS * (W_OGS - scales * (codes - zeros)) ** 2).sum(-1))
        assert bool((losses[1] <= losses[0] * (1 + 1e-5)).all())
        assert float(losses[1].sum()) < 0.9 * float(losses[0].sum())


def test_a_group_of_zeros_stays_zero() -> None:
    """An empty range gets a usable scale, and its weights stay exactly 0."""
    fitted = grid.minmax_grid(torch.zeros(1, 2, 8), bits=4, sym=True)
    codes = grid.encode(torch.zeros(1, 2), fitted.scales_OG, fitted.zeros_OG, 4)
    assert bool((fitted.scales_OG > 0).all())
    assert bool((fitted.scales_OG * (codes - fitted.zeros_OG) == 0).all())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e7])
def test_weights_beyond_float16_scales_are_refused(value: float) -> None:
    """A scale that float16 cannot hold is an error, never a silent infinity."""
    W_OGS = torch.ones(2, 1, 8)
    W_OGS[1, 0, 3] = value
    with pytest.raises(NumericalError, match="scale"):
        grid.minmax_grid(W_OGS, bits=4, sym=True)


def test_a_signed_scale_reaches_the_largest_weight() -> None:
    """A group whose largest weight is positive takes a negative scale, which puts it on the extra negative level."""
    W_OGS = torch.tensor([[[1.0, 0.13, -0.12, 0.26, -0.25, 0.38, 0.0, -0.5]]])
    cost_GS = torch.ones(1, 8)
    signed = grid.searched_grid(W_OGS, cost_GS, bits=4, sym=True, signed=True)
    unsigned = grid.searched_grid(W_OGS, cost_GS, bits=4, sym=True)
    assert float(signed.scales_OG) < 0 < float(unsigned.scales_OG)
    differences = []
    for fitted in (signed, unsigned):
        codes = grid.encode(W_OGS[0], fitted.scales_OG, fitted.zeros_OG, 4)
        differences.append(float((fitted.scales_OG * (codes - fitted.zeros_OG) - W_OGS[0]).square().sum()))
    assert differences[0] < 0.5 * differences[1]


def _losses(W_OGS: torch.Tensor, cost_GS: torch.Tensor, fitted: grid.Grid, bits: int) -> torch.Tensor:
    """Returns the weighted squared differences [O, G] in float64."""
    scales, zeros = fitted.scales_OG[..., None].double(), fitted.zeros_OG[..., None].double()
    codes = (torch.round(W_OGS.double() / scales) + zeros).clamp(0, grid.top_code(bits))
    return (cost_GS.double() * (W_OGS - scales * (codes - zeros)) ** 2).sum(-1)


def _skewed_groups(seed: int, rows: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns groups [rows, 2, size] that lie beside 0, some on one side of it, with outliers, and costs [2, size]."""
    generator = torch.Generator().manual_seed(seed)
    W_OGS = torch.randn(rows, 2, size, generator=generator) * 0.1
    W_OGS += torch.randn(rows, 2, 1, generator=generator) * 0.15
    W_OGS[::3, :, 0] *= 6
    return W_OGS, torch.rand(2, size, generator=generator) ** 3 + 1e-3


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), bits=st.sampled_from([2, 3, 4]), size=st.sampled_from([2, 5, 16]))
def test_a_search_finds_the_best_of_all_zeros(seed: int, bits: int, size: int) -> None:
    """The walk over zeros ends where trying every scale with every zero does."""
    W_OGS, cost_GS = _skewed_groups(seed, 6, size)
    widest_OG = grid.minmax_grid(W_OGS, bits=bits, sym=False).scales_OG
    reach_OG = W_OGS.amax(-1).clamp(min=0) - W_OGS.amin(-1).clamp(max=0)
    least_OG = torch.full_like(widest_OG, torch.inf, dtype=torch.float64)
    for factor, zero in itertools.product(grid.SHRINK_FACTORS, range(2**bits)):
        scales_OG = grid.stored_scale(reach_OG * factor / grid.top_code(bits))
        tried = grid.Grid(scales_OG=scales_OG, zeros_OG=torch.full_like(scales_OG, float(zero)))
        least_OG = torch.minimum(least_OG, _losses(W_OGS, cost_GS, tried, bits))
    found_OG = _losses(W_OGS, cost_GS, grid.searched_grid(W_OGS, cost_GS, bits=bits, sym=False), bits)
    # The search compares sums in float32: of two that are so near it may take either.
    torch.testing.assert_close(found_OG, least_OG, rtol=1e-3, atol=1e-9)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), bits=st.sampled_from([2, 3, 4, 8]))
def test_a_free_zero_is_never_worse_than_the_shrunk_range_s_own(seed: int, bits: int) -> None:
    """Each shrunk range with the zero that it has by itself is where a walk starts."""
    W_OGS, cost_GS = _skewed_groups(seed, 8, 32)
    found = grid.searched_grid(W_OGS, cost_GS, bits=bits, sym=False)
    found_OG = _losses(W_OGS, cost_GS, found, bits)
    for factor in grid.SHRINK_FACTORS:
        bound = grid.minmax_grid(W_OGS * factor, bits=bits, sym=False)
        assert bool((found_OG <= _losses(W_OGS, cost_GS, bound, bits) * (1 + 1e-4) + 1e-9).all())
    assert torch.equal(found.zeros_OG, found.zeros_OG.round())
    assert 0 <= float(found.zeros_OG.min()) <= float(found.zeros_OG.max()) <= grid.top_code(bits)
    assert torch.equal(found.scales_OG, found.scales_OG.half().float())


def test_free_zeros_gain_where_few_levels_meet_skewed_groups() -> None:
    """At 2 bits the best zero of a group is often another one than its range's, and worth it."""
    W_OGS, cost_GS = _skewed_groups(1, 64, 32)
    bound = torch.stack(
        [
            _losses(W_OGS, cost_GS, grid.minmax_grid(W_OGS * factor, bits=2, sym=False), 2)
            for factor in grid.SHRINK_FACTORS
        ]
    )
    found = _losses(W_OGS, cost_GS, grid.searched_grid(W_OGS, cost_GS, bits=2, sym=False), 2)
    assert float(found.sum()) < 0.97 * float(bound.amin(dim=0).sum())
