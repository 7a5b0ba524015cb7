from __future__ import annotations

import pytest
import torch

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
