from __future__ import annotations

import pytest
import torch

from core.solver.division import Divisor
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
@pytest.mark.parametrize(("start", "stop"), [(0, 1), (5, 100), (0, 193), (64, 700), (0, 700), (699, 700)])
def test_squares_of_the_factor_are_inverted(
    monkeypatch: pytest.MonkeyPatch, start: int, stop: int, parts: bool
) -> None:
    """Wherever they begin and end, whatever lies below the diagonal, where the inverse has zeros."""
    if parts:
        small_parts(monkeypatch)
    divisor = Divisor.of(hessian_of(correlated_inputs(1400, 700)) + torch.eye(700))
    assert divisor is not None
    inverse_II = divisor.inverse(start, stop)
    assert torch.equal(inverse_II, inverse_II.triu())
    square_II = divisor.R_II[start:stop, start:stop].triu()
    torch.testing.assert_close(inverse_II @ square_II, torch.eye(stop - start), rtol=0, atol=1e-4)


@pytest.mark.parametrize("width", [1, 640, 641, 1536, 2048, 8192, 11008])
def test_squares_lie_one_after_the_other(width: int) -> None:
    """None wider than asked for, and none a sliver."""
    squares = Divisor(torch.empty(width, 0)).squares(640)
    assert [start for start, _ in squares] == [0, *(stop for _, stop in squares[:-1])]
    assert squares[-1][1] == width
    assert all(min(width, 256) <= stop - start <= 640 for start, stop in squares)
