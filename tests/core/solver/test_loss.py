from __future__ import annotations

import pytest
import torch

from core.solver.loss import quadratic_loss
from tests.core.solver.problems import correlated_inputs, exact_loss, hessian_of, random_weight, small_parts


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize(("rows", "width"), [(1, 2), (5, 63), (24, 74), (1030, 200), (70, 1602)])
def test_the_loss_is_the_trace(monkeypatch: pytest.MonkeyPatch, rows: int, width: int, parts: bool) -> None:
    """tr(D H Dᵀ) with D and H rounded where they are multiplied, by the kernel and by torch in parts alike."""
    if parts:
        small_parts(monkeypatch)
    D_OI, H_II = random_weight(rows, width), hessian_of(correlated_inputs(200, width))
    rounded_OI, rounded_II = (matrix.bfloat16().double() for matrix in (D_OI, H_II))
    below_II = 2 * torch.tril(rounded_II) - rounded_II.diagonal().diag()
    exact = float((rounded_OI @ below_II.T).mul_(D_OI).sum())
    below_only = torch.tril(H_II) + torch.triu(torch.full_like(H_II, torch.nan), 1)
    assert quadratic_loss(D_OI, below_only) == pytest.approx(exact, rel=1e-5)


def test_rounding_moves_the_loss_of_a_whole_weight_little() -> None:
    """Its errors are many and of either sign."""
    D_OI, H_II = random_weight(600, 400), hessian_of(correlated_inputs(900, 400))
    assert quadratic_loss(D_OI, H_II) == pytest.approx(exact_loss(D_OI, H_II), rel=2e-4)
