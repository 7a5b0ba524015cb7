"""Turns a batch's JSON into what a person reads: a row per job, a line per batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.compare_table import letter
from cli.job_text import STATE_STYLES, method_text
from cli.output import age_text, bytes_text, duration_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table
    from rich.text import Text

NOT_KNOWN = "-"


def batch_table(batch: Mapping[str, Any]) -> Table:
    """Returns one row per job, marked by the letter that `compare` gives it too."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for column in ("", "JOB", "STATE", "DONE", "MODEL", "METHOD", "SIZE", "TIME"):
        right = column in {"DONE", "SIZE", "TIME"}
        table.add_column(column, no_wrap=column != "MODEL", justify="right" if right else "left")
    for at, row in enumerate(batch["table"]):
        table.add_row(
            letter(at),
            row["job_id"],
            row_state(row),
            f"{row['fraction']:.0%}",
            row["model"],
            method_text(row["config"]),
            NOT_KNOWN if row["artifact_bytes"] is None else bytes_text(row["artifact_bytes"]),
            NOT_KNOWN if row["seconds"] is None else duration_text(row["seconds"]),
        )
    return table


def row_state(row: Mapping[str, Any]) -> Text:
    """Returns the state in its colour, with the code of the error that ended the job."""
    from rich.text import Text

    said = f"{row['state']}: {row['error']}" if row["error"] else row["state"]
    return Text(said, style=STATE_STYLES.get(row["state"], ""))


def list_table(batches: Sequence[Mapping[str, Any]]) -> Table:
    """Returns one row per batch."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for column in ("ID", "CREATED", "JOBS", "NAME"):
        table.add_column(column, no_wrap=True)
    for batch in batches:
        table.add_row(batch["id"], age_text(batch["created_at"]), states_text(batch["states"]), batch["name"])
    return table


def states_text(states: Mapping[str, int]) -> str:
    """Returns `2 running, 1 succeeded`; zeros are left out."""
    counted = (f"{states[state]} {state}" for state in STATE_STYLES if states.get(state))
    return ", ".join(counted) or "deleted"
