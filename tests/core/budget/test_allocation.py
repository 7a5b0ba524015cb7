"""The allocation never exceeds the limit, and is as good as trying everything where everything can be tried."""

from __future__ import annotations

from itertools import pairwise, product

from hypothesis import given, settings
from hypothesis import strategies as st

from core.budget.allocation import Choice, allocate, allocate_alike, curve

choices = st.builds(Choice, st.integers(1, 40), st.integers(0, 100).map(float))
problems = st.lists(st.lists(choices, min_size=1, max_size=4), min_size=1, max_size=4)
FINE = [[Choice(4, 9.0), Choice(6, 4.0), Choice(8, 1.0)], [Choice(4, 90.0), Choice(6, 40.0), Choice(8, 10.0)]]


def least(units: list[list[Choice]], limit: int) -> float | None:
    """Returns the least cost by trying every combination."""
    costs = [sum(c.cost for c in picked) for picked in product(*units) if sum(c.size for c in picked) <= limit]
    return min(costs, default=None)


@settings(max_examples=200)
@given(problems, st.integers(0, 160))
def test_it_fits_and_lies_within_one_step_of_the_best(units: list[list[Choice]], limit: int):
    """A limit that nothing fits is told as such; else the size fits and the cost is the best but for one step."""
    best = least(units, limit)
    found = allocate(units, limit)
    if best is None or found is None:
        assert best is None
        assert found is None
        return
    picked = [unit[pick] for unit, pick in zip(units, found.picks, strict=True)]
    assert found.size == sum(choice.size for choice in picked) <= limit
    assert abs(found.cost - sum(choice.cost for choice in picked)) < 1e-9
    largest_step = max(max(c.cost for c in unit) - min(c.cost for c in unit) for unit in units)
    assert best - 1e-9 <= found.cost <= best + largest_step + 1e-9


@settings(max_examples=100)
@given(problems)
def test_every_point_of_the_curve_is_the_best_of_its_size(units: list[list[Choice]]):
    """The path passes only through optima: sizes rise, costs fall, and nothing of that size costs less."""
    points = curve(units)
    for before, after in pairwise(points):
        assert before.size < after.size
        assert before.cost > after.cost
    for point in points:
        best = least(units, point.size)
        assert best is not None
        assert abs(point.cost - best) < 1e-6


def test_the_unit_that_loses_more_gets_the_bytes():
    """With room for one step, the unit that gains most by it takes it."""
    found = allocate(FINE, 10)
    assert found is not None
    assert found.picks == (0, 1)


def test_all_alike_takes_one_choice_everywhere():
    """No mixture, even where one would be better; None where nothing fits."""
    found = allocate_alike(FINE, 15)
    assert found is not None
    assert found.picks == (1, 1)
    assert allocate_alike(FINE, 7) is None
