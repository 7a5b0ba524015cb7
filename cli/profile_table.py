"""The table of `bitmill run --profile`: seconds and bytes by kind of work, matrix products against the machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.table import Table

from cli.output import bytes_text, duration_text

if TYPE_CHECKING:
    from pathlib import Path

PROFILE_FILE = "profile.json"
BAR_CELLS = 24


def read_profile(artifact: Path) -> dict[str, Any]:
    """Returns what the engine wrote into the artifact."""
    values: dict[str, Any] = json.loads((artifact / PROFILE_FILE).read_text("utf-8"))
    return values


def profile_table(profile: dict[str, Any]) -> Table:
    """Returns a row per kind of work that took time, and what all matrix products need at the machine's rate.

    "beside" is the time of threads that read and wrote while the run went on.
    """
    total = profile["seconds"]
    rates = ", ".join(f"{rate / 1e9:,.0f} GF/s {dtype}" for dtype, rate in profile["operations_per_second"].items())
    table = Table(
        title=f"Where {duration_text(total)} went, up to packing",
        caption=f"Matrix products at this machine's rate ({rates}): {profile['product_share']:.0%} of the time",
    )
    table.add_column("work")
    table.add_column("time", justify="right")
    table.add_column("share", justify="right")
    table.add_column("")
    table.add_column("beside", justify="right")
    table.add_column("bytes", justify="right")
    table.add_column("products", justify="right")
    for name, amount in profile["work"].items():
        if amount["seconds"] or amount["seconds_beside"]:
            table.add_row(*_cells(name, amount, total))
    return table


def _cells(name: str, amount: dict[str, Any], total: float) -> tuple[str, ...]:
    share = amount["seconds"] / total
    operations = sum(amount["operations"].values())
    return (
        name,
        f"{amount['seconds']:.2f} s",
        f"{share:.1%}",
        f"[cyan]{'█' * round(share * BAR_CELLS)}[/]",
        f"{amount['seconds_beside']:.2f} s" if amount["seconds_beside"] else "",
        bytes_text(amount["bytes"]) if amount["bytes"] else "",
        f"{operations / amount['seconds'] / 1e9:,.0f} GF/s" if operations and amount["seconds"] else "",
    )
