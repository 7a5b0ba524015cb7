from __future__ import annotations

import pytest
import torch

from core.errors import NumericalError
from core.solver.factor import factorize
from tests.core.solver.problems import correlated_inputs, hessian_of, relative_distance


def test_r_is_the_upper_factor_of_the_damped_hessian() -> None:
    """RRᵀ = H + λI with R upper triangular and a positive diagonal."""
    H_II = hessian_of(correlated_inputs(500, 48))
    factor = factorize(H_II, 0.05)
    damped = H_II.double() + 0.05 * H_II.diagonal().double().mean() * torch.eye(48, dtype=torch.float64)
    R_II = factor.divisor.R_II.double().triu()
    torch.testing.assert_close(R_II @ R_II.T, damped, rtol=1e-5, atol=1e-5)
    assert bool((R_II.diagonal() > 0).all())
    assert factor.damp_percent == 0.05
    assert factor.steps == ()


def test_a_failed_factorization_raises_the_damping_and_says_so() -> None:
    """A Hessian that is not positive definite gets more damping, step by step, each step in the record."""
    H_II = torch.diag(torch.tensor([1.0, 1.0, 1.0, -0.3]))
    factor = factorize(H_II, 0.05)
    assert factor.damp_percent > 0.05
    assert factor.steps[:2] == ("float32 failed at damp_percent 0.05", "float64 failed at damp_percent 0.05")


def test_a_hopeless_hessian_is_a_numerical_error() -> None:
    """When no damping below 1 helps, the error says what was tried and what to do."""
    with pytest.raises(NumericalError, match=r"could not be factorized.*damp_percent"):
        factorize(torch.diag(torch.tensor([1.0, 1.0, 1.0, -5.0])), 0.05)
    with pytest.raises(NumericalError, match="not finite"):
        factorize(torch.diag(torch.tensor([1.0, float("nan")])), 0.05)


def test_a_dead_input_moves_no_other() -> None:
    """An input that was always 0 has nothing beside the diagonal of R: its rounding asks nothing of other columns."""
    X_NI = correlated_inputs(300, 12)
    X_NI[:, 5] = 0
    R_II = factorize(hessian_of(X_NI), 0.01).divisor.R_II
    assert bool((R_II[5, 6:] == 0).all())
    assert bool((R_II[:5, 5] == 0).all())


@pytest.mark.parametrize("width", [191, 193, 449, 700, 1301])
def test_r_is_the_same_whatever_the_halves_are(width: int) -> None:
    """Widths that are split once, several times and unevenly, odd ones too: RRᵀ = H + λI, H is as it was."""
    H_II = hessian_of(correlated_inputs(2 * width, width))
    before = H_II.clone()
    order_I = torch.randperm(width, generator=torch.Generator().manual_seed(1))
    R_II = factorize(H_II, 0.05, order_I).divisor.R_II.double().triu()
    assert torch.equal(H_II, before)
    damped = H_II.double()[order_I][:, order_I] + 0.05 * H_II.diagonal().double().mean() * torch.eye(width)
    assert relative_distance(R_II @ R_II.T, damped) < 1e-6
