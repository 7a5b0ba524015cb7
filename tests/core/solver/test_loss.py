from __future__ import annotations

import pytest
import torch

from core.solver.loss import output_energy, quadratic_loss
from tests.core.solver.problems import correlated_inputs, hessian_of, random_weight, small_parts


@pytest.mark.parametrize("parts", [False, True])
def test_the_loss_is_the_trace(monkeypatch: pytest.MonkeyPatch, parts: bool) -> None:
    """tr(D H Dᵀ), also where H's triangle is multiplied in parts, the last one narrower."""
    if parts:
        small_parts(monkeypatch)
    D_OI, H_II = random_weight(24, 75), hessian_of(correlated_inputs(200, 75))
    exact = float(torch.trace(D_OI.double() @ H_II.double() @ D_OI.double().T))
    assert quadratic_loss(D_OI, H_II) == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("width", [64, 576])
def test_the_energy_has_three_digits_in_bfloat16_too(width: int) -> None:
    """Its rounding errors are many and of either sign."""
    W_OI, H_II = random_weight(256, width), hessian_of(correlated_inputs(2 * width, width))
    exact = float(torch.trace(W_OI.double() @ H_II.double() @ W_OI.double().T))
    assert output_energy(W_OI, H_II) == pytest.approx(exact, rel=1e-3)
