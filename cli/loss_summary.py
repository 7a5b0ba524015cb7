"""Turns a report's per-linear losses into a few lines: one row per kind of linear, and the worst one by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from core.report import LinearReport

_BLOCK_NUMBER = re.compile(r"\.\d+\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class KindLoss:
    """All linears that have one name in every block. Relative losses: 0 is lossless, 1 as bad as zero weights."""

    kind: str
    linears: int
    mean: float
    worst: float
    worst_name: str


def summarise(linears: Sequence[LinearReport]) -> tuple[KindLoss, ...]:
    """Returns one row per kind, in the order of the first block; linears without a Hessian have no loss and no row."""
    groups: dict[str, list[tuple[float, str]]] = {}
    for linear in linears:
        if linear.relative_loss is not None:
            groups.setdefault(_kind(linear.name), []).append((linear.relative_loss, linear.name))
    return tuple(
        KindLoss(
            kind=kind,
            linears=len(losses),
            mean=sum(loss for loss, _ in losses) / len(losses),
            worst=max(losses)[0],
            worst_name=max(losses)[1],
        )
        for kind, losses in groups.items()
    )


def loss_table(rows: Sequence[KindLoss]) -> Table:
    """Returns the rows as a table for the terminal."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2))
    table.add_column("LINEAR", no_wrap=True)
    table.add_column("COUNT", justify="right")
    table.add_column("MEAN LOSS", justify="right")
    table.add_column("WORST", justify="right")
    table.add_column("IN", no_wrap=True)
    for row in rows:
        table.add_row(row.kind, str(row.linears), f"{row.mean:.3%}", f"{row.worst:.3%}", row.worst_name)
    return table


def _kind(name: str) -> str:
    """Returns what follows the block's number: `self_attn.q_proj` for `model.layers.3.self_attn.q_proj`."""
    return _BLOCK_NUMBER.split(name, maxsplit=1)[-1]
