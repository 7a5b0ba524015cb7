from __future__ import annotations

import pytest
import torch
from torch import nn

from core.matmul import linears_at_full_rate, product
from tests.core.solver.problems import random_weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "width", "columns"), [(1, 1, 1), (3, 70, 5), (64, 33, 128), (0, 8, 4), (5, 0, 4)])
def test_it_is_the_product_with_the_transpose(rows: int, width: int, columns: int, dtype: torch.dtype) -> None:
    """The exact product up to the dtype's rounding, for sides that are views as well, and empty ones."""
    left = random_weight(rows, 2 * width).to(dtype)[:, :width]
    right = random_weight(width, columns).to(dtype).T
    got = product(left, right)
    assert got.dtype is dtype
    torch.testing.assert_close(got.double(), left.double() @ right.double().T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_linears_give_what_they_give_elsewhere(bias: bool) -> None:
    """Within the context as outside, up to float32 rounding; other dtypes bit by bit."""
    linear, X = nn.Linear(48, 96, bias=bias), random_weight(64, 48).view(4, 16, 48)
    with torch.inference_mode():
        expected, expected_half = linear(X), linear.bfloat16()(X.bfloat16())
        with linears_at_full_rate():
            got_half, got = linear(X.bfloat16()), linear.float()(X)
    assert torch.equal(got_half, expected_half)
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected, rtol=0.02, atol=0.02)
