from __future__ import annotations

import pytest
import torch

from core.profile import Profile, Work
from core.solver.matmul import times_transposed
from tests.core.solver.problems import random_weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "width", "columns"), [(1, 1, 1), (3, 70, 5), (64, 33, 128), (0, 8, 4), (5, 0, 4)])
def test_it_is_the_product_with_the_transpose(rows: int, width: int, columns: int, dtype: torch.dtype) -> None:
    """The exact product up to the dtype's rounding, for sides that are views as well, and empty ones."""
    left = random_weight(rows, 2 * width).to(dtype)[:, :width]
    right = random_weight(width, columns).to(dtype).T
    got = times_transposed(left, right, Work.LOSS)
    assert got.dtype is dtype
    torch.testing.assert_close(got.double(), left.double() @ right.double().T, rtol=1e-5, atol=1e-5)


def test_operations_are_counted_under_the_work_named() -> None:
    """Two operations for each product of two numbers."""
    profile = Profile()
    with profile.recording():
        times_transposed(torch.ones(3, 5), torch.ones(7, 5), Work.REFINE)
    assert profile.amounts[Work.REFINE].operations == {"float32": 210.0}
