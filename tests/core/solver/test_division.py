from __future__ import annotations

import pytest
import torch

from core.solver.division import Divisor, invert
from tests.core.solver.problems import correlated_inputs, hessian_of, random_weight, relative_distance, small_parts

# What rounding both sides of the products to bfloat16 comes to under these Hessians.
ROUNDING = 0.01


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("width", [1, 192, 193, 700, 1301])
def test_dividing_undoes_multiplying(monkeypatch: pytest.MonkeyPatch, width: int, parts: bool) -> None:
    """(A M) / M = A for a damped Hessian M, whatever its halves are, also where torch multiplies triangles in parts."""
    if parts:
        small_parts(monkeypatch)
    damped_II = hessian_of(correlated_inputs(2 * width, width)) + torch.eye(width)
    A_OI = random_weight(24, width)
    divided_OI = (A_OI.double() @ damped_II.double()).float()
    divisor = Divisor.of(damped_II)
    assert divisor is not None
    divisor.divide(divided_OI)
    assert relative_distance(divided_OI, A_OI) < ROUNDING


@pytest.mark.parametrize("width", [3, 400])
def test_what_is_not_positive_definite_divides_nothing(width: int) -> None:
    """Wherever on the diagonal that shows."""
    for place in (0, width - 1):
        A_II = torch.eye(width)
        A_II[place, place] = -1
        assert Divisor.of(A_II) is None


def test_what_lies_beside_the_columns_stays() -> None:
    """A part of a wider matrix is divided where it lies."""
    damped_II = hessian_of(correlated_inputs(500, 250)) + torch.eye(250)
    around = random_weight(7, 254)
    before = around.clone()
    expected = torch.linalg.solve(damped_II.double(), before[:, 2:-2].double().T).T
    divisor = Divisor.of(damped_II)
    assert divisor is not None
    divisor.divide(around[:, 2:-2])
    assert relative_distance(around[:, 2:-2], expected) < ROUNDING
    assert torch.equal(around[:, [0, 1, -2, -1]], before[:, [0, 1, -2, -1]])


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("width", [1, 64, 193, 700])
def test_a_triangle_is_inverted_by_halves(monkeypatch: pytest.MonkeyPatch, width: int, parts: bool) -> None:
    """Whatever lies below its diagonal, where the inverse has zeros."""
    if parts:
        small_parts(monkeypatch)
    A_II = hessian_of(correlated_inputs(2 * width, width)) + torch.eye(width)
    R_II = torch.linalg.cholesky(A_II).T
    inverse_II = invert(R_II + torch.tril(torch.ones(width, width), -1))
    assert torch.equal(inverse_II, inverse_II.triu())
    torch.testing.assert_close(inverse_II @ R_II, torch.eye(width), rtol=0, atol=1e-4)
