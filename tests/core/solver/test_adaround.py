from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.configs import AdaRoundConfig
from core.quantizers.adaround import AdaRoundQuantizer
from core.quantizers.base import SolvedLinear
from core.solver import grid
from core.solver.adaround import Schedule, learn_rounding
from core.solver.clip import best_rows, clipped_grid
from core.solver.hessian import HessianAccumulator, InputStatistics
from core.solver.rtn import round_on, round_to_nearest
from tests.core.solver.problems import correlated_inputs, exact_loss, hessian_of, random_weight

FAST = Schedule(iterations=60, learning_rate=0.1, warm_start=0.1)


def _statistics(width: int = 64) -> InputStatistics:
    accumulator = HessianAccumulator(width, torch.device("cpu"))
    accumulator.add(correlated_inputs(500, width))
    return accumulator.finish()


def _solve(W_OI: torch.Tensor, statistics: InputStatistics | None, **options: object) -> SolvedLinear:
    config = AdaRoundConfig(**{"group_size": 16, "iterations": 60, **options})  # type: ignore[arg-type]  # test options
    quantizer = AdaRoundQuantizer(config)
    return quantizer.convert(W_OI, quantizer.prepare(statistics))


@pytest.mark.parametrize("clip_search", [True, False])
@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_loss_is_below_that_of_rounding(bits: int, sym: bool, clip_search: bool) -> None:
    """On its training Hessian AdaRound is never worse than round-to-nearest in any row, and better by a margin."""
    W_OI, statistics = random_weight(24, 64), _statistics()
    solved = _solve(W_OI, statistics, bits=bits, sym=sym, clip_search=clip_search)
    rounded = round_to_nearest(W_OI, bits=bits, group_size=16, sym=sym)
    H_II = statistics.hessian_II
    for row in range(24):
        learned = exact_loss((solved.weight.dequantize() - W_OI)[row : row + 1], H_II)
        assert learned <= exact_loss((rounded.dequantize() - W_OI)[row : row + 1], H_II) * (1 + 1e-5)
    assert solved.loss is not None
    assert solved.loss < 0.9 * exact_loss(rounded.dequantize() - W_OI, H_II)


def test_with_an_isotropic_hessian_it_is_rounding() -> None:
    """With H = c·I each weight counts for itself alone, and its nearest code is the best of its two."""
    W_OI = random_weight(24, 64)
    statistics = InputStatistics(hessian_II=torch.eye(64) * 3.7, tokens=500, dead_inputs=0, dropped_rows=0)
    solved = _solve(W_OI, statistics, clip_search=False).weight
    rounded = round_to_nearest(W_OI, bits=4, group_size=16, sym=True)
    assert torch.equal(solved.codes_OI, rounded.codes_OI)
    assert torch.equal(solved.scales_OG, rounded.scales_OG)


def test_codes_lie_beside_their_weights() -> None:
    """Learning chooses between down and up and nothing else, and stays on the grid; the same every time."""
    W_OI, H_II = random_weight(16, 64), hessian_of(correlated_inputs(300, 64))
    start = round_to_nearest(W_OI, bits=3, group_size=16, sym=True)
    group_I = start.g_idx_I.long()
    scales_OI, zeros_OI = start.scales_OG.float()[:, group_I], start.zeros_OG.float()[:, group_I]
    steps: list[None] = []
    codes = learn_rounding(W_OI, H_II, (scales_OI, zeros_OI), 3, FAST, lambda: steps.append(None))
    assert len(steps) == FAST.iterations
    exact = (W_OI / scales_OI + zeros_OI).clamp(0, 7)
    assert float((codes.float() - exact).abs().max()) <= 1
    assert int((codes != start.codes_OI).sum()) > 0
    assert torch.equal(codes, learn_rounding(W_OI, H_II, (scales_OI, zeros_OI), 3, FAST, lambda: None))


def test_chunks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows learn apart from each other, so memory can be bounded by learning some at a time."""
    W_OI, statistics = random_weight(12, 64), _statistics()
    whole = _solve(W_OI, statistics).weight.codes_OI
    monkeypatch.setattr("core.solver.adaround.CHUNK_WEIGHTS", 64 * 5)
    assert float((_solve(W_OI, statistics).weight.codes_OI == whole).float().mean()) > 0.99


def test_a_linear_without_tokens_is_rounded_with_a_warning() -> None:
    W_OI = random_weight(8, 64)
    solved = _solve(W_OI, None)
    assert torch.equal(solved.weight.codes_OI, round_to_nearest(W_OI, bits=4, group_size=16, sym=True).codes_OI)
    assert len(solved.warnings) == 1


@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("group_size", [16, -1])
def test_clipping_lowers_each_groups_own_loss(group_size: int, sym: bool) -> None:
    """The clipped range of a group is never worse than its whole range on the group's own inputs."""
    W_OI, H_II = random_weight(16, 64), hessian_of(correlated_inputs(300, 64))
    size = 64 if group_size == -1 else group_size
    clipped = round_on(
        W_OI, clipped_grid(W_OI, H_II, bits=3, group_size=group_size, sym=sym), bits=3, group_size=group_size, sym=sym
    )
    whole = round_to_nearest(W_OI, bits=3, group_size=group_size, sym=sym)
    assert not torch.equal(clipped.scales_OG, whole.scales_OG)
    for start in range(0, 64, size):
        part = slice(start, start + size)
        losses = [
            torch.einsum("oi,oi->o", D_OS @ H_II[part, part], D_OS)
            for D_OS in ((weight.dequantize() - W_OI)[:, part] for weight in (clipped, whole))
        ]
        assert bool((losses[0] <= losses[1] * (1 + 1e-5)).all())


def test_the_better_row_is_kept() -> None:
    """Every row comes from the weight in which its loss is least."""
    W_OI, H_II = random_weight(16, 64), hessian_of(correlated_inputs(300, 64))
    coarse = round_to_nearest(W_OI, bits=4, group_size=16, sym=True)
    spoiled = coarse.codes_OI.clone()
    spoiled[::2] ^= 1
    better = torch.arange(16) % 2 == 1
    mixed = best_rows(W_OI, H_II, [replace(coarse, codes_OI=coarse.codes_OI ^ 1), replace(coarse, codes_OI=spoiled)])
    assert torch.equal(mixed.codes_OI[better], coarse.codes_OI[better])
    assert grid.top_code(4) >= int(mixed.codes_OI.max())
