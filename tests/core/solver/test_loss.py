from __future__ import annotations

import pytest
import torch

from core.solver.loss import quadratic_loss
from tests.core.solver.problems import correlated_inputs, hessian_of, random_weight, small_parts


@pytest.mark.parametrize("parts", [False, True])
def test_the_loss_is_the_trace(monkeypatch: pytest.MonkeyPatch, parts: bool) -> None:
    """tr(D H Dᵀ), also where torch multiplies H's triangle in parts, the last one narrower."""
    if parts:
        small_parts(monkeypatch)
    D_OI, H_II = random_weight(24, 75), hessian_of(correlated_inputs(200, 75))
    exact = float(torch.trace(D_OI.double() @ H_II.double() @ D_OI.double().T))
    assert quadratic_loss(D_OI, H_II) == pytest.approx(exact, rel=1e-5)
