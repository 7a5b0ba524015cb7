from __future__ import annotations

import pytest
import torch
from torch import nn

from core.device import CPU
from core.matmul import linears_at_full_rate, parts_of, product_rates, times_lower_transposed, times_transposed
from core.profile import Profile, Work
from tests.core.solver.problems import random_weight, small_parts


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "width", "columns"), [(1, 1, 1), (3, 70, 5), (64, 33, 128), (0, 8, 4), (5, 0, 4)])
def test_it_is_the_product_with_the_transpose(rows: int, width: int, columns: int, dtype: torch.dtype) -> None:
    """The exact product up to the dtype's rounding, for sides that are views as well, and empty ones."""
    left = random_weight(rows, 2 * width).to(dtype)[:, :width]
    right = random_weight(width, columns).to(dtype).T
    got = times_transposed(left, right, Work.LOSS)
    assert got.dtype is dtype
    torch.testing.assert_close(got.double(), left.double() @ right.double().T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("width", [1, 511, 512, 1536, 2048, 5000, 8192])
def test_parts_cover_a_width_once_and_are_few(width: int) -> None:
    """One after the other without a gap, none of several narrower than PART_COLUMNS but the last."""
    parts = parts_of(width)
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == width
    assert len(parts) <= 4
    assert all(part.stop - part.start >= 512 for part in parts[:-1])


def test_the_half_above_a_diagonal_takes_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The product with the lower triangle, whatever lies above its parts, in fewer operations than the whole one."""
    small_parts(monkeypatch)
    left, square = random_weight(24, 70), random_weight(70, 70)
    lower = square.tril()
    beyond = lower.clone()
    for part in parts_of(70):
        beyond[part, part.stop :] = torch.nan
    profile = Profile()
    with profile.recording():
        got = times_lower_transposed(left, beyond, Work.FACTORIZATION)
    torch.testing.assert_close(got, left @ lower.T, rtol=1e-5, atol=1e-5)
    assert profile.amounts[Work.FACTORIZATION].operations["float32"] < 0.7 * 2 * 24 * 70 * 70


def test_operations_are_counted_under_the_work_named() -> None:
    """Two operations for each product of two numbers."""
    profile = Profile()
    with profile.recording():
        times_transposed(torch.ones(3, 5), torch.ones(7, 5), Work.REFINE)
    assert profile.amounts[Work.REFINE].operations == {"float32": 210.0}


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


def test_rates_are_those_of_all_devices_each_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's products are held against what its devices can do together; two names of one processor are one."""
    monkeypatch.setattr("core.matmul._product_rate", lambda _dtype, device: 3.0 + (device.index or 0))
    assert product_rates(["float32"], CPU, CPU) == {"float32": 3.0}
    assert product_rates(["float32"], torch.device("cuda", 0), torch.device("cuda", 1)) == {"float32": 7.0}
