"""What `bitmill calibration` does: texts that are stored in a service, over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.client import ServiceClient
from cli.keeping import kept_text
from cli.output import age_text, bytes_text, err, out, print_json
from cli.settings import client_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

PATH = "/v1/calibration-sets"


def list_sets(*, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Prints the newest texts first."""
    with ServiceClient(client_settings(url, api_key)) as client:
        sets = client.get(PATH)["data"]
    if as_json:
        print_json({"calibration_sets": sets})
    else:
        out().print(set_table(sets) if sets else "No text is stored.")


def show_set(set_id: str, *, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Prints one text, with what a look over it found."""
    with ServiceClient(client_settings(url, api_key)) as client:
        found = client.get(f"{PATH}/{set_id}")
    if as_json:
        print_json(found)
        return
    console = out()
    console.print(set_table([found]))
    tokens = f"about {found['estimated_tokens']} tokens" if found["estimated_tokens"] is not None else "not looked over"
    console.print(f"{found['sha256']}  {found['format']}, {tokens}", style="dim")
    for warning in found["warnings"]:
        err().print(f"warning: {warning}", style="yellow")


def set_table(sets: Sequence[dict[str, Any]]) -> Table:
    """Returns one row per text."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for column in ("ID", "NAME", "SIZE", "DOCUMENTS", "STORED", "KEPT"):
        table.add_column(column, no_wrap=column == "ID", justify="right" if column in {"SIZE", "DOCUMENTS"} else "left")
    for one in sets:
        table.add_row(
            one["id"],
            one["name"],
            bytes_text(one["size_bytes"]),
            str(one["documents"]),
            age_text(one["created_at"]),
            kept_text(one),
        )
    return table
