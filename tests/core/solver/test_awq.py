from __future__ import annotations

import pytest
import torch

from core.configs import AWQConfig
from core.quantizers.awq import AWQQuantizer
from core.solver.channels import exact_exponents, search_exponents
from core.solver.hessian import HessianAccumulator, InputStatistics
from core.solver.rtn import round_to_nearest
from tests.core.solver.problems import correlated_inputs, exact_loss, hessian_of, random_weight


def _uneven(width: int = 64) -> torch.Tensor:
    """Returns inputs of which a few channels are many times larger, as decoders have them."""
    X_NI = correlated_inputs(600, width)
    X_NI[:, ::13] *= 12
    return X_NI


def _rounded(W_OI: torch.Tensor) -> torch.Tensor:
    return round_to_nearest(W_OI, bits=3, group_size=16, sym=True).dequantize()


def _whole(wanted_I: torch.Tensor) -> torch.Tensor:
    return wanted_I.round().long()


def test_scaled_channels_beat_rounding() -> None:
    """Where a few channels carry most of the input, finer weights for them lower the loss by a margin."""
    W_OI, H_II = random_weight(40, 64), hessian_of(_uneven())
    exponents_I, alpha = search_exponents([W_OI], H_II, 20, _whole, _rounded)
    scaled = torch.ldexp(_rounded(torch.ldexp(W_OI, exponents_I)), -exponents_I)
    assert alpha > 0
    assert exact_loss(scaled - W_OI, H_II) < 0.85 * exact_loss(_rounded(W_OI) - W_OI, H_II)


def test_linears_behind_one_input_share_their_scales() -> None:
    """The loss that is searched is the sum over all of them."""
    first, second, H_II = random_weight(16, 64), random_weight(24, 64, seed=5), hessian_of(_uneven())
    shared = search_exponents([first, second], H_II, 20, _whole, _rounded)
    stacked = search_exponents([torch.cat([first, second])], H_II, 20, _whole, _rounded)
    assert torch.equal(shared[0], stacked[0])


def test_no_scale_is_the_first_candidate() -> None:
    """With equal channels, or where nothing may be taken over, the search keeps exponents of 0: plain rounding."""
    W_OI = random_weight(16, 64)
    equal = search_exponents([W_OI], torch.eye(64), 20, _whole, _rounded)
    bound = search_exponents([W_OI], hessian_of(_uneven()), 20, lambda wanted_I: _whole(wanted_I * 0), _rounded)
    for exponents_I, alpha in (equal, bound):
        assert not exponents_I.any()
        assert alpha == 0


@pytest.mark.parametrize("sym", [True, False])
def test_without_scales_and_clipping_it_is_rounding(sym: bool) -> None:
    """Alpha = 0 and no clip: the codes and scales of round-to-nearest."""
    accumulator = HessianAccumulator(64, torch.device("cpu"))
    accumulator.add(_uneven())
    W_OI = random_weight(24, 64)
    quantizer = AWQQuantizer(AWQConfig(group_size=16, sym=sym, channel_steps=0, clip_search=False))
    assert not quantizer.scales_channels
    solved = quantizer.convert(W_OI, quantizer.prepare(accumulator.finish())).weight
    rounded = round_to_nearest(W_OI, bits=4, group_size=16, sym=sym)
    assert torch.equal(solved.codes_OI, rounded.codes_OI)
    assert torch.equal(solved.scales_OG, rounded.scales_OG)
    assert torch.equal(solved.zeros_OG, rounded.zeros_OG)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_clipping_never_raises_a_linears_loss(bits: int) -> None:
    W_OI = random_weight(24, 64)
    statistics = InputStatistics(hessian_II=hessian_of(_uneven()), tokens=600, dead_inputs=0, dropped_rows=0)
    losses = []
    for clip_search in (True, False):
        quantizer = AWQQuantizer(AWQConfig(bits=bits, group_size=16, clip_search=clip_search))
        losses.append(quantizer.convert(W_OI, quantizer.prepare(statistics)).loss or 0.0)
    assert losses[0] <= losses[1]


def test_a_linear_without_tokens_is_rounded_with_a_warning() -> None:
    quantizer = AWQQuantizer(AWQConfig(group_size=16))
    assert quantizer.convert(random_weight(8, 64), quantizer.prepare(None)).warnings


def test_exponents_keep_float16_values_exact() -> None:
    """Dividing by the smallest and the largest exponent of a row gives float16 numbers without rounding or overflow."""
    values = torch.tensor([[1.0, -3.0], [2.0**-14, 60000.0], [0.0, 0.3], [0.0, 0.0]]).half()
    lowest_R, highest_R = exact_exponents(values)
    assert bool((lowest_R <= 0).all())
    assert bool((highest_R >= 0).all())
    assert (int(lowest_R[1]), int(highest_R[1])) == (0, 0)
    for exponents_R in (lowest_R, highest_R):
        exact = torch.ldexp(values.double(), -exponents_R[:, None])
        assert torch.equal(exact.half().double(), exact)
