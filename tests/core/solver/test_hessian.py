from __future__ import annotations

import torch

from core.solver.hessian import HessianAccumulator, InputStatistics
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
