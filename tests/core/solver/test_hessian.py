from __future__ import annotations

import pytest
import torch

from core.solver.held_out import HeldOutAccumulator
from core.solver.hessian import Counting, HessianAccumulator, InputStatistics
from tests.core.solver.problems import correlated_inputs


def _accumulate(*batches: torch.Tensor, mask: torch.Tensor | None = None) -> InputStatistics:
    accumulator = HessianAccumulator(batches[0].shape[-1], torch.device("cpu"))
    for batch in batches:
        accumulator.add(batch, mask)
    return accumulator.finish()


def test_the_triangle_by_blocks_is_the_whole_product() -> None:
    """Summing the upper triangle by column blocks and mirroring it gives mean x xᵀ, also across block borders."""
    X_NI = correlated_inputs(400, 700)
    statistics = _accumulate(X_NI[:100].view(4, 25, 700), X_NI[100:])
    expected = (X_NI.double().T @ X_NI.double() / 400).float()
    torch.testing.assert_close(statistics.hessian_II, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(statistics.hessian_II, statistics.hessian_II.T)
    assert statistics.tokens == 400


def test_padding_is_left_out() -> None:
    """Rows that the token mask calls padding change nothing."""
    X = correlated_inputs(60, 16).view(3, 20, 16)
    mask = torch.ones(3, 20, dtype=torch.bool)
    mask[1, 5:] = False
    masked = _accumulate(X, mask=mask)
    assert masked.tokens == 45
    assert torch.equal(masked.hessian_II, _accumulate(X[mask]).hessian_II)


def test_dead_inputs_and_rows_that_are_not_finite_are_counted() -> None:
    """A column of zeros is a dead input; a row with NaN or infinity is dropped and counted, never averaged in."""
    X = correlated_inputs(50, 8)
    X[:, 3] = 0
    clean = _accumulate(X)
    X = torch.cat([X, torch.full((1, 8), float("nan")), torch.full((1, 8), float("inf"))])
    statistics = _accumulate(X)
    assert (statistics.dead_inputs, statistics.dropped_rows, statistics.tokens) == (1, 2, 50)
    assert torch.equal(statistics.hessian_II, clean.hessian_II)


@pytest.mark.parametrize("width", [48, 50, 100])
@pytest.mark.parametrize("value", [float("nan"), float("-inf"), -3e38])
@pytest.mark.parametrize("column", [0, -1])
def test_packed_rows_that_are_not_finite_are_dropped_wherever_they_lie(width: int, value: float, column: int) -> None:
    """In any part of a batch, in whole and partial panels, as the last of an odd number; a sum that overflows as well.

    The rows beside them count as they do without them, in both sums and in what is multiplied with them.
    """
    X = correlated_inputs(1501, width).bfloat16()
    spoilt = [0, 777, 1023, 1024, 1500]
    X[spoilt, column], X[spoilt, column - 1] = value, value
    kept = torch.ones(1501, dtype=torch.bool)
    kept[spoilt] = False
    found, expected = (HessianAccumulator(width, torch.device("cpu")) for _ in range(2))
    found.add(X, float_X=X.nan_to_num(0, 0, 0), drift=X[:, 1:3].nan_to_num(0, 0, 0))
    for part in (slice(0, 1024), slice(1024, None)):
        rows = X[part][kept[part]]
        expected.add(rows, float_X=rows, drift=rows[:, 1:3])
    ours, theirs = found.finish(), expected.finish()
    assert (ours.dropped_rows, ours.tokens) == (5, 1496)
    assert torch.equal(ours.hessian_II, theirs.hessian_II)
    assert ours.mismatch is not None
    assert theirs.mismatch is not None
    assert torch.equal(ours.mismatch.difference_II, theirs.mismatch.difference_II)
    assert torch.equal(ours.mismatch.drift_OI, theirs.mismatch.drift_OI)  # type: ignore[arg-type]  # there is one


def test_large_values_whose_sum_is_finite_count() -> None:
    """Values beyond what packing tells apart are looked at row by row, and stay."""
    X = torch.ones(4, 8).bfloat16()
    X[1, 2], X[3, 4] = 2.0**100, -(2.0**120)
    assert _accumulate(X).tokens == 4


def test_rows_that_are_zeros_add_what_rows_that_are_left_out_do() -> None:
    """Where asking which rows count would wait for the device, the others become zeros, whatever they hold."""
    X_NI = correlated_inputs(40, 8)
    X_NI[3], X_NI[7] = float("nan"), float("inf")
    counts_N = torch.isfinite(X_NI.sum(dim=1))
    counts_N[20:] = False
    selected, zeroed = (Counting(counts_N, selects=selects) for selects in (True, False))
    assert int(selected.tokens) == int(zeroed.tokens) == 18
    left, zeros = selected.of(X_NI), zeroed.of(X_NI)
    assert (left.shape, zeros.shape) == ((18, 8), (40, 8))
    torch.testing.assert_close(zeros.T @ zeros, left.T @ left)


def _parts(number: int) -> dict[str, torch.Tensor | None]:
    """Returns a batch with, in turn, float inputs and drift, the inputs alone, and a row that is not finite."""
    X = correlated_inputs(60, 16, seed=number)
    if number % 3 == 2:
        X[5] = float("inf")
    if number % 2:
        return {"X": X, "token_mask": torch.arange(60) > 3}
    return {"X": X, "token_mask": None, "float_X": X.nan_to_num(posinf=0) * 1.1, "drift": X[:, :4].nan_to_num(posinf=0)}


@pytest.mark.parametrize("dealt", [[range(8), range(8, 16)], [range(5), range(5, 5), range(5, 7), range(7, 16)]])
def test_sums_of_several_are_those_of_one(dealt: list[range]) -> None:
    """All that is known of the inputs, held out or not, comes out as if one had taken every batch."""
    kind, device = HeldOutAccumulator, torch.device("cpu")
    alone, parts = kind(16, device), [kind(16, device) for _ in dealt]
    for part, numbers in zip(parts, dealt, strict=True):
        for number in numbers:
            for accumulator in (alone, part):
                accumulator.of_batch(number).add(**_parts(number))
    total, *others = parts
    for other in others:
        total.take(other)
    found, expected = total.finish(), alone.finish()
    assert found.held_out is not None
    assert expected.held_out is not None
    for one, other in ((found, expected), (found.held_out, expected.held_out)):
        assert (one.tokens, one.dropped_rows, one.dead_inputs) == (other.tokens, other.dropped_rows, other.dead_inputs)
        torch.testing.assert_close(one.hessian_II, other.hessian_II)
        assert one.mismatch is not None
        assert other.mismatch is not None
        torch.testing.assert_close(one.mismatch.difference_II, other.mismatch.difference_II)
        torch.testing.assert_close(one.mismatch.drift_OI, other.mismatch.drift_OI)


def test_what_came_with_batches_to_judge_by_alone_is_solved_with() -> None:
    """An expert that only the seventh batch reaches is no expert without tokens."""
    accumulator = HeldOutAccumulator(16, torch.device("cpu"))
    accumulator.of_batch(6).add(correlated_inputs(60, 16))
    statistics = accumulator.finish()
    assert statistics.tokens == 60
    assert statistics.held_out is None
