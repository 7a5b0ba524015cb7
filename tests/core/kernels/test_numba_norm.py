from __future__ import annotations

import pytest
import torch

from core.kernels.numba_norm import norm_rows


@pytest.mark.parametrize(("tokens", "width"), [(1, 1), (65, 63), (130, 64), (3, 200)])
def test_a_norm_is_rounded_from_the_exact_one(tokens: int, width: int) -> None:
    """Of whole and partial turns and lanes: within one step of bfloat16 for each of the two roundings."""
    generator = torch.Generator().manual_seed(tokens)
    X_NI = (3 * torch.randn(tokens, width, generator=generator)).bfloat16()
    weight_I = torch.randn(width, generator=generator).bfloat16()
    exact = X_NI.double()
    exact = exact / (exact.square().mean(dim=1, keepdim=True) + 1e-5).sqrt() * weight_I.double()
    torch.testing.assert_close(norm_rows(X_NI, weight_I, 1e-5).double(), exact, rtol=2**-7, atol=0)


def test_epsilon_keeps_rows_of_zeros_at_zero() -> None:
    """Nothing is divided by zero."""
    X_NI = torch.zeros(2, 8, dtype=torch.bfloat16)
    assert torch.equal(norm_rows(X_NI, torch.ones(8).bfloat16(), 1e-6), X_NI)


def test_what_is_not_finite_stays_in_its_row() -> None:
    """A NaN or an infinity makes its own row's results NaN or 0, as torch's division does."""
    X_NI = torch.ones(3, 4, dtype=torch.bfloat16)
    X_NI[0, 1], X_NI[2, 3] = torch.nan, torch.inf
    found = norm_rows(X_NI, torch.ones(4).bfloat16(), 0.0)
    assert found[0].isnan().all()
    assert torch.equal(found[1], X_NI[1])
    assert found[2, :3].eq(0).all()
    assert found[2, 3].isnan()
