"""Finished rows of the accuracy table, kept in a file of JSON lines, and the table that is printed from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

FLOAT = "float"
REFERENCE = "GPTQModel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One row: what was run and what it gave. bits and group_size are None for the float model."""

    model: str
    title: str
    perplexity: float
    bits: int | None = None
    group_size: int | None = None
    seconds: float | None = None
    peak_rss_bytes: int | None = None


class Results:
    """All finished rows; with a file they outlive the process."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        lines = file.read_text("utf-8").splitlines() if file is not None and file.exists() else []
        self._rows = [Scored(**json.loads(line)) for line in lines]

    def add(self, row: Scored) -> None:
        """Keeps a row."""
        self._rows.append(row)
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")

    def of(self, model: str, bits: int, group_size: int) -> list[Scored]:
        """Returns the rows of one table, in the order of their runs."""
        return [row for row in self._rows if (row.model, row.bits, row.group_size) == (model, bits, group_size)]

    def holds(self, model: str, bits: int, group_size: int, title: str) -> bool:
        """Whether a row was run already."""
        return any(row.title == title for row in self.of(model, bits, group_size))

    def float_perplexity(self, model: str) -> float | None:
        """Returns the float model's perplexity; None before it was measured."""
        return next((row.perplexity for row in self._rows if row.model == model and row.title == FLOAT), None)


def render(rows: Sequence[Scored], float_perplexity: float | None) -> str:
    """Returns one table as text."""
    if float_perplexity is None:
        return "no float perplexity"
    lines = [f"{'':40} {'perplexity':>10} {'x float':>8} {'share':>6} {'seconds':>8} {'MB':>6}"]
    lines.append(f"{FLOAT:40} {float_perplexity:10.3f} {1:8.3f}")
    gap = next((row.perplexity - float_perplexity for row in rows if row.title.startswith(REFERENCE)), None)
    for row in rows:
        share = "" if gap is None else f"{(row.perplexity - float_perplexity) / gap:.2f}"
        lines.append(
            f"{row.title:40} {row.perplexity:10.3f} {row.perplexity / float_perplexity:8.3f} {share:>6} "
            f"{row.seconds or 0:8.1f} {(row.peak_rss_bytes or 0) / 1e6:6.0f}"
        )
    return "\n".join(lines)
