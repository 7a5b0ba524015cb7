"""Picks one option per unit so that the sizes stay under a limit and the costs add up to the least: a knapsack.

Lagrangian: along each unit's lower convex hull, the step that saves most per byte is taken first. That is exact at
every size that the path passes through; what is left below a limit is filled greedily. Standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Choice:
    """One option of a unit: its size in bytes and what it costs."""

    size: int
    cost: float


@dataclass(frozen=True, slots=True)
class Point:
    """A size that the path passes through, and the least cost at it."""

    size: int
    cost: float


@dataclass(frozen=True, slots=True)
class Allocation:
    """picks: the index of each unit's choice."""

    picks: tuple[int, ...]
    size: int
    cost: float


@dataclass(frozen=True, slots=True)
class _Step:
    """From one corner of a unit's hull to the next."""

    unit: int
    pick: int
    size: int
    saving: float

    @property
    def rate(self) -> float:
        return self.saving / self.size


def allocate(units: Sequence[Sequence[Choice]], limit: int) -> Allocation | None:
    """Returns the allocation of at most `limit` bytes; None where even the smallest choices are larger."""
    picks = [_smallest(choices) for choices in units]
    room = limit - _size(units, picks)
    if room < 0:
        return None
    closed: set[int] = set()
    for step in _steps(units):
        if step.unit in closed:
            continue
        if step.size > room:
            closed.add(step.unit)
            continue
        picks[step.unit] = step.pick
        room -= step.size
    _fill(units, picks, room)
    return _allocation(units, picks)


def allocate_alike(units: Sequence[Sequence[Choice]], limit: int) -> Allocation | None:
    """Returns the best allocation that takes the same choice in every unit; all units list the same choices."""
    options = [_allocation(units, [pick] * len(units)) for pick in range(len(units[0]))]
    return min((option for option in options if option.size <= limit), key=lambda option: option.cost, default=None)


def curve(units: Sequence[Sequence[Choice]]) -> list[Point]:
    """Returns every size of the path, from the smallest to the largest, with the least cost at it."""
    start = _allocation(units, [_smallest(choices) for choices in units])
    points = [Point(start.size, start.cost)]
    for step in _steps(units):
        points.append(Point(points[-1].size + step.size, points[-1].cost - step.saving))
    return points


def _steps(units: Sequence[Sequence[Choice]]) -> list[_Step]:
    """Returns the steps of all units by falling saving per byte; a unit's own steps come in its order."""
    steps = []
    for unit, choices in enumerate(units):
        for before, after in pairwise(_hull(choices)):
            size, saving = choices[after].size - choices[before].size, choices[before].cost - choices[after].cost
            steps.append(_Step(unit=unit, pick=after, size=size, saving=saving))
    return sorted(steps, key=lambda step: -step.rate)


def _hull(choices: Sequence[Choice]) -> list[int]:
    """Returns the indexes on the lower convex hull of cost over size, from the smallest to the least costly."""
    hull: list[int] = []
    for index in sorted(range(len(choices)), key=lambda index: (choices[index].size, choices[index].cost)):
        if hull and choices[index].cost >= choices[hull[-1]].cost:
            continue
        while len(hull) > 1 and _slope(choices, hull[-2], index) <= _slope(choices, hull[-2], hull[-1]):
            hull.pop()
        hull.append(index)
    return hull


def _slope(choices: Sequence[Choice], before: int, after: int) -> float:
    return (choices[after].cost - choices[before].cost) / (choices[after].size - choices[before].size)


def _fill(units: Sequence[Sequence[Choice]], picks: list[int], room: int) -> None:
    """Takes, as long as one fits, the single change that saves most."""
    while True:
        changes = [
            (choices[picks[unit]].cost - choice.cost, unit, pick)
            for unit, choices in enumerate(units)
            for pick, choice in enumerate(choices)
            if choice.size - choices[picks[unit]].size <= room
        ]
        saving, unit, pick = max(changes)
        if saving <= 0:
            return
        room -= units[unit][pick].size - units[unit][picks[unit]].size
        picks[unit] = pick


def _smallest(choices: Sequence[Choice]) -> int:
    return min(range(len(choices)), key=lambda index: (choices[index].size, choices[index].cost))


def _size(units: Sequence[Sequence[Choice]], picks: Sequence[int]) -> int:
    return sum(choices[pick].size for choices, pick in zip(units, picks, strict=True))


def _allocation(units: Sequence[Sequence[Choice]], picks: Sequence[int]) -> Allocation:
    cost = sum(choices[pick].cost for choices, pick in zip(units, picks, strict=True))
    return Allocation(picks=tuple(picks), size=_size(units, picks), cost=cost)
