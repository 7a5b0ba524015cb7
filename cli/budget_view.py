"""A budget's plan on the terminal: how many weights got which grid, and the curve of size against divergence."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.budget.plan import BudgetPlan, CurvePoint

WIDTH = 56
HEIGHT = 10
CURVE, CHOSEN, UNIFORM = "·", "●", "x"
DECADES = 3
"""What is drawn of the curve's height: below that, its end would flatten everything else."""


def plan_line(plan: BudgetPlan) -> str:
    """Returns what was reached, in one line."""
    return f"Budget: {plan.bits:.3f} bits per weight, predicted divergence {plan.divergence:.4f} nats per token"


def plan_table(plan: BudgetPlan) -> Table:
    """Returns the weights on each grid."""
    weights: Counter[tuple[int, int]] = Counter()
    for unit in plan.units:
        weights[unit.bits, unit.group_size] += unit.weights
    total = sum(weights.values())
    table = Table()
    for name in ("bits", "group size", "weights"):
        table.add_column(name, justify="right")
    for (bits, group_size), count in sorted(weights.items()):
        size = "whole row" if group_size == -1 else str(group_size)
        table.add_row(str(bits), size, f"{count / total:.1%}")
    return table


def curve_picture(plan: BudgetPlan) -> Text:
    """Returns the curve over bits per weight, its height logarithmic; the plan and single grids are marked on it."""
    from math import log10

    chosen = type(plan.curve[0])(bits=plan.bits, divergence=plan.divergence)
    floor = max(point.divergence for point in plan.curve) / 10**DECADES
    shown = [point for point in (*plan.curve, *plan.uniform, chosen) if point.divergence > floor]
    low, high = (bound(log10(point.divergence) for point in shown) for bound in (min, max))
    left, right = (bound(point.bits for point in shown) for bound in (min, max))
    rows = [[" "] * WIDTH for _ in range(HEIGHT)]

    def mark(points: Sequence[CurvePoint], symbol: str) -> None:
        for point in points:
            if point.divergence > floor:
                column = round((point.bits - left) / max(right - left, 1e-9) * (WIDTH - 1))
                row = round((high - log10(point.divergence)) / max(high - low, 1e-9) * (HEIGHT - 1))
                rows[row][column] = symbol

    mark(plan.curve, CURVE)
    mark(plan.uniform, UNIFORM)
    mark([chosen], CHOSEN)
    lines = ["".join(row).rstrip() for row in rows]
    scale = [f"{10**high:8.3g} │", *["         │"] * (HEIGHT - 2), f"{10**low:8.3g} │"]
    picture = "\n".join(f"{label}{line}" for label, line in zip(scale, lines, strict=True))
    ends = f"{left:.2f}".ljust(WIDTH - 10) + f"{right:.2f} bits"
    legend = f"divergence, nats per token: {CHOSEN} chosen  {CURVE} best mixtures  {UNIFORM} one grid for all"
    return Text(f"{picture}\n         └{'─' * WIDTH}\n          {ends}\n{legend}")
