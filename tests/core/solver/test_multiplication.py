"""Products of views and triangles, by the kernels and by torch alike."""

from __future__ import annotations

import numba
import pytest
import torch

from core.device import CPU
from core.kernels.compiled import multiplies
from core.kernels.halves import WHOLE, Half, Halves
from core.kernels.vectors import has_feature
from core.profile import Profile, Work
from core.solver.multiplication import (
    add_product,
    multiply_into,
    parts_of,
    product_rates,
    quadratic_form,
    rounded,
    times_transposed,
)
from tests.core.solver.problems import random_weight, small_parts

HALVES = [
    Halves(wanted=Half.LOWER),
    Halves(wanted=Half.UPPER),
    Halves(left=Half.LOWER),
    Halves(left=Half.UPPER),
    Halves(right=Half.LOWER),
    Halves(right=Half.UPPER),
]
TAKE = {Half.ALL: torch.clone, Half.LOWER: torch.tril, Half.UPPER: torch.triu}


def _without_other_half(matrix: torch.Tensor, half: Half) -> torch.Tensor:
    """Returns the matrix with what takes no part beyond reach of any sum: not a number."""
    inside = TAKE[half](torch.ones_like(matrix)).bool()
    return torch.where(inside, matrix, torch.nan)


@pytest.fixture(params=["kernels", "torch"])
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who multiplies; torch in small parts."""
    if request.param == "torch":
        small_parts(monkeypatch)
    return str(request.param)


def test_float32_on_the_cpu_is_multiplied_by_the_kernels() -> None:
    """Where the processor has the vectors; other dtypes are torch's."""
    assert multiplies(torch.ones(2, 2), torch.float32) is has_feature("avx512f")
    assert not multiplies(torch.ones(2, 2).double(), torch.float32)


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize(
    ("rows", "columns", "depth"), [(1, 1, 1), (6, 64, 16), (7, 65, 17), (50, 200, 90), (2030, 70, 20), (20, 70, 1600)]
)
def test_views_are_multiplied_as_they_lie(
    by: str, rows: int, columns: int, depth: int, turned: tuple[bool, bool], adds: bool
) -> None:
    """Into or onto a part of a matrix, from sides whose rows or columns lie apart, with a factor; nothing beside it."""
    del by
    sizes = [(rows, depth), (columns, depth)]
    left, right = (
        random_weight(size[1], 2 * size[0]).T[: size[0]] if turn else random_weight(size[0], 2 * size[1])[:, : size[1]]
        for size, turn in zip(sizes, turned, strict=True)
    )
    around = random_weight(rows + 2, columns + 3)
    expected = around.double()
    expected[1:-1, 2:-1] *= adds
    expected[1:-1, 2:-1] -= 1.5 * left.double() @ right.double().T
    run = add_product if adds else multiply_into
    run(around[1:-1, 2:-1], left, right, Work.LOSS, factor=-1.5)
    torch.testing.assert_close(around.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("half", list(Half))
@pytest.mark.parametrize(
    ("rows", "columns", "depth"),
    [(1, 1, 1), (6, 64, 64), (7, 65, 18), (50, 200, 200), (2030, 70, 70), (20, 1602, 1602)],
)
def test_rounded_products_round_both_sides_and_no_sum(
    by: str, rows: int, columns: int, depth: int, half: Half, adds: bool
) -> None:
    """To bfloat16, by whoever multiplies; of views that lie anywhere, and of a half of the right side."""
    del by
    columns = columns if half is Half.ALL else depth
    left = rounded(random_weight(rows, 2 * depth))[:, depth : 2 * depth]
    right = random_weight(depth, 2 * columns).T[:columns]
    around = random_weight(rows + 2, columns + 3)
    expected = around.double()
    expected[1:-1, 2:-1] *= adds
    expected[1:-1, 2:-1] -= 1.5 * left.double() @ TAKE[half](right.bfloat16()).double().T
    run = add_product if adds else multiply_into
    halves = Halves(right=half)
    run(around[1:-1, 2:-1], left, _without_other_half(right, half), Work.LOSS, factor=-1.5, halves=halves)
    torch.testing.assert_close(around.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("depth", [0, 6])
def test_rounded_products_of_nothing_are_nothing(by: str, depth: int) -> None:
    """Where there is no column the sums are 0, or stay; where there is no row nothing is asked."""
    del by
    sums = random_weight(3, 5)
    left, right = rounded(random_weight(3, depth)[:, :0]), random_weight(5, depth)[:, :0]
    before = sums.clone()
    add_product(sums, left, right, Work.LOSS)
    assert torch.equal(sums, before)
    multiply_into(sums, left, right, Work.LOSS)
    assert not bool(sums.any())
    assert times_transposed(left[:0], right, Work.LOSS).shape == (0, 5)


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("other", [5, 130])
@pytest.mark.parametrize("width", [1, 63, 131, 1603])
@pytest.mark.parametrize("halves", HALVES)
def test_the_other_half_takes_no_part(by: str, halves: Halves, width: int, other: int, adds: bool) -> None:
    """Whatever lies there; of a half that is wanted, the other may be anything."""
    del by
    wanted = halves.wanted is not Half.ALL
    rows = width if wanted or halves.left is not Half.ALL else other
    columns = width if wanted or halves.right is not Half.ALL else other
    depth = other if wanted else width
    left, right = random_weight(rows, depth), random_weight(columns, depth, seed=2)
    sums = random_weight(rows, columns, seed=3)
    exact = TAKE[halves.left](left).double() @ TAKE[halves.right](right).double().T + adds * sums.double()
    run = add_product if adds else multiply_into
    run(
        sums, _without_other_half(left, halves.left), _without_other_half(right, halves.right), Work.LOSS, halves=halves
    )
    take = TAKE[halves.wanted]
    torch.testing.assert_close(take(sums).double(), take(exact), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "width", "columns"), [(3, 70, 5), (0, 8, 4), (5, 0, 4), (5, 4, 0)])
def test_it_is_the_product_in_memory_of_its_own(rows: int, width: int, columns: int, dtype: torch.dtype) -> None:
    """Of the sides' dtype; of empty sides as well, whose sums are 0."""
    left, right = random_weight(rows, width).to(dtype), random_weight(columns, width).to(dtype)
    got = times_transposed(left, right, Work.LOSS)
    assert got.dtype is dtype
    torch.testing.assert_close(got.double(), left.double() @ right.double().T, rtol=1e-5, atol=1e-5)


def test_the_sums_do_not_depend_on_the_number_of_threads() -> None:
    """One thread and all of them give the same bytes."""
    left, right = random_weight(300, 900), random_weight(200, 900)
    found = []
    threads = numba.get_num_threads()
    try:
        for count in (1, threads):
            numba.set_num_threads(count)
            products = [times_transposed(side, right, Work.LOSS) for side in (left, rounded(left))]
            form = quadratic_form(left, right.T[:, :200] @ left[:200], Work.LOSS)
            found.append(torch.cat([*products, torch.full((1, 200), form)]))
    finally:
        numba.set_num_threads(threads)
    assert torch.equal(*found)


@pytest.mark.parametrize("width", [1, 511, 512, 1536, 2048, 5000, 8192])
def test_parts_cover_a_width_once_and_are_few(width: int) -> None:
    """One after the other without a gap, none of several narrower than PART_COLUMNS but the last."""
    parts = parts_of(width)
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == width
    assert len(parts) <= 4
    assert all(part.stop - part.start >= 512 for part in parts[:-1])


@pytest.mark.parametrize(("halves", "operations"), [(WHOLE, 50.0), (Halves(right=Half.LOWER), 25.0)])
def test_operations_are_counted_under_the_work_named(halves: Halves, operations: float) -> None:
    """Two operations for each product of two numbers, half as many of a half."""
    profile = Profile()
    with profile.recording():
        times_transposed(torch.ones(1, 5), torch.ones(5, 5), Work.REFINE, halves=halves)
    assert profile.amounts[Work.REFINE].operations == {"float32": operations}


def test_rates_are_those_of_all_devices_each_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's products are held against what its devices can do together; two names of one processor are one."""
    monkeypatch.setattr("core.solver.multiplication._product_rate", lambda _dtype, device: 3.0 + (device.index or 0))
    assert product_rates(["float32"], CPU, CPU) == {"float32": 3.0}
    assert product_rates(["float32"], torch.device("cuda", 0), torch.device("cuda", 1)) == {"float32": 7.0}
