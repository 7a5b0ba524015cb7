from __future__ import annotations

import copy

import pytest
import torch

from core.configs import GPTQConfig, Order
from core.quantizers.base import SolvedLinear
from core.quantizers.gptq import NOTHING_HELD_OUT, GPTQQuantizer
from core.solver.held_out import HeldOutAccumulator
from core.solver.hessian import HessianAccumulator, InputStatistics
from core.solver.loss import TargetLoss
from core.solver.target import wanted_change
from tests.core.solver.problems import correlated_inputs, random_weight

WIDTH = 64


def _batches(count: int = 8) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Returns inputs and the float model's inputs of the same tokens, batch by batch."""
    X0_NI = correlated_inputs(60 * count, WIDTH)
    disturbance = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(4)) * 0.05
    return list(zip((X0_NI + X0_NI @ disturbance).chunk(count), X0_NI.chunk(count), strict=True))


def _statistics(count: int = 8) -> InputStatistics:
    accumulator = HeldOutAccumulator(WIDTH, torch.device("cpu"))
    for number, (X_NI, X0_NI) in enumerate(_batches(count)):
        accumulator.of_batch(number).add(X_NI, None, X0_NI)
    return accumulator.finish()


def _convert(W_OI: torch.Tensor, statistics: InputStatistics, **options: object) -> SolvedLinear:
    quantizer = GPTQQuantizer(GPTQConfig(**{"bits": 3, "group_size": 16, **options}))  # type: ignore[arg-type]
    statistics = copy.deepcopy(statistics)  # what a set is prepared from becomes the quantizer's
    return quantizer.convert(W_OI, quantizer.prepare(statistics))


def _judged(W_OI: torch.Tensor, solved: SolvedLinear, statistics: InputStatistics) -> float:
    assert statistics.held_out is not None
    assert statistics.held_out.mismatch is not None
    wanted_OI = wanted_change(W_OI, statistics.held_out.mismatch, alpha=GPTQConfig().mismatch_alpha, beta=0.0)
    return TargetLoss(W_OI, statistics.held_out.hessian_II, wanted_OI).of(solved.weight.dequantize())


def test_held_out_tokens_are_in_nothing_that_is_solved_with() -> None:
    """The seventh batch is kept apart, on both paths; the others give what they give alone."""
    statistics = _statistics()
    alone = HessianAccumulator(WIDTH, torch.device("cpu"))
    for number, (X_NI, X0_NI) in enumerate(_batches()):
        if number != 6:
            alone.add(X_NI, None, X0_NI)
    expected = alone.finish()
    assert statistics.held_out is not None
    assert statistics.held_out.mismatch is not None
    assert (statistics.tokens, statistics.held_out.tokens) == (420, 60)
    assert torch.equal(statistics.hessian_II, expected.hessian_II)


@pytest.mark.parametrize("seed", range(4))
def test_auto_never_keeps_the_worse_order(seed: int) -> None:
    """Of the orders it tries, the one it reports has the least held-out loss, and its codes are that order's."""
    W_OI, statistics = random_weight(24, WIDTH, seed), _statistics()
    tried = {order: _convert(W_OI, statistics, order=order) for order in Order.AUTO.tried}
    chosen = _convert(W_OI, statistics, order="auto")
    assert chosen.order in set(tried)
    assert torch.equal(chosen.weight.codes_OI, tried[Order(chosen.order)].weight.codes_OI)
    assert _judged(W_OI, chosen, statistics) == min(_judged(W_OI, each, statistics) for each in tried.values())
    assert chosen.weight.monotone_groups


@pytest.mark.parametrize("rounds", [1, 4])
def test_refinement_is_kept_only_where_held_out_tokens_agree(rounds: int) -> None:
    """Kept or not, the held-out loss is never above the one without it, and the report says which."""
    statistics = _statistics()
    kept = set()
    for seed in range(6):
        W_OI = random_weight(4, WIDTH, seed)
        plain = _convert(W_OI, statistics, refine_rounds=0)
        refined = _convert(W_OI, statistics, hold_out=True, refine_rounds=rounds)
        assert _judged(W_OI, refined, statistics) <= _judged(W_OI, plain, statistics)
        assert refined.refined is not torch.equal(refined.weight.codes_OI, plain.weight.codes_OI)
        assert plain.refined is None
        kept.add(refined.refined)
    assert True in kept


def test_a_refinement_that_overfits_is_dropped() -> None:
    """Judged on tokens that are nothing like those it was fitted to, refinement is not kept."""
    accumulator = HeldOutAccumulator(WIDTH, torch.device("cpu"))
    for number in range(8):
        accumulator.of_batch(number).add(correlated_inputs(12, WIDTH, seed=number))
    statistics = accumulator.finish()
    solved = [
        _convert(random_weight(4, WIDTH, seed), statistics, bits=4, damp_percent=0.001, hold_out=True, refine_rounds=8)
        for seed in range(6)
    ]
    assert False in {each.refined for each in solved}


def test_too_few_batches_to_hold_one_out_are_told() -> None:
    """With fewer than seven batches the choice is made on the tokens that were solved with, under a warning."""
    statistics = _statistics(count=3)
    assert statistics.held_out is None
    assert NOTHING_HELD_OUT in _convert(random_weight(8, WIDTH), statistics, order="auto").warnings
    assert NOTHING_HELD_OUT not in _convert(random_weight(8, WIDTH), statistics).warnings


def test_the_loss_towards_the_target_is_the_distance_of_outputs() -> None:
    """Differences of `TargetLoss` are those of mean |(1-a) W x + a W x0 + b (r0-r) - W_hat x|² on the tokens."""
    X_NI, X0_NI = _batches(1)[0]
    accumulator = HessianAccumulator(WIDTH, torch.device("cpu"))
    drift_NO = torch.randn(len(X_NI), 8, generator=torch.Generator().manual_seed(3)) + X_NI[:, :8]
    accumulator.add(X_NI, None, X0_NI, drift_NO)
    inputs, W_OI = accumulator.finish(), random_weight(8, WIDTH)
    wanted = (0.7 * X_NI + 0.3 * X0_NI) @ W_OI.T + 0.6 * drift_NO
    others = [W_OI + 0.01, W_OI * 0.9]
    assert inputs.mismatch is not None
    wanted_OI = wanted_change(W_OI, inputs.mismatch, alpha=0.3, beta=0.6)
    told = [TargetLoss(W_OI, inputs.hessian_II, wanted_OI).of(other) for other in others]
    real = [float((wanted - X_NI @ other.T).square().sum(dim=1).mean()) for other in others]
    assert told[1] - told[0] == pytest.approx(real[1] - real[0], rel=1e-2)


@pytest.mark.parametrize("order", ["auto", "desc_act_static", "desc_act"])
def test_a_set_that_is_used_up_solves_its_last_linear_alike(order: str) -> None:
    """Codes and scales are the same, and of what was prepared nothing but the Hessian is held afterwards."""
    quantizer = GPTQQuantizer(GPTQConfig(bits=3, group_size=16, order=Order(order)))
    weights = [random_weight(24, WIDTH, seed) for seed in range(2)]
    kept, used_up = _statistics(), _statistics()
    prepared = quantizer.prepare(kept)
    expected = [quantizer.convert(W_OI, prepared) for W_OI in weights]
    before = used_up.hessian_II.clone()
    prepared = quantizer.prepare(used_up)
    first = quantizer.convert(weights[0], prepared)
    quantizer.serve_last(prepared)
    for found, wanted in zip((first, quantizer.convert(weights[1], prepared)), expected, strict=True):
        assert torch.equal(found.weight.codes_OI, wanted.weight.codes_OI)
        assert torch.equal(found.weight.scales_OG, wanted.weight.scales_OG)
        assert found.loss == wanted.loss
    assert torch.equal(used_up.hessian_II, before)
    assert used_up.mismatch is not None
    assert used_up.mismatch.difference_II.numel() == 0
