"""What `bitmill workers` does: the service's workers over HTTP, as a table of machines and a line per queue class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.client import ServiceClient
from cli.output import age_text, bytes_text, out, print_json
from cli.settings import client_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

STATE_STYLES = {"idle": "green", "busy": "cyan", "draining": "yellow", "drained": "yellow", "lost": "red"}


def list_workers(*, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Prints every worker and the room by queue class."""
    with ServiceClient(client_settings(url, api_key)) as client:
        listed = client.get("/v1/workers")
    if as_json:
        print_json({"workers": listed["data"], "capacity": listed["capacity"]})
        return
    console = out()
    console.print(worker_table(listed["data"]) if listed["data"] else "No worker is registered.")
    for room in listed["capacity"]:
        console.print(
            f"{room['queue_class']}: {room['free']} of {room['slots']} slots free, {room['waiting']} waiting",
            style="dim",
        )


def act_on_worker(worker_id: str, action: str, *, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Drains a worker or lets it go on."""
    with ServiceClient(client_settings(url, api_key)) as client:
        worker = client.post(f"/v1/workers/{worker_id}:{action}")
    if as_json:
        print_json(worker)
    else:
        out().print(f"{worker_id} is {worker['state']}.")


def worker_table(workers: Sequence[dict[str, Any]]) -> Table:
    """Returns one row per worker."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for column in ("ID", "STATE", "JOBS", "DEVICE", "MEMORY", "CLASSES", "HEARD"):
        table.add_column(column, no_wrap=column in {"ID", "STATE"}, justify="right" if column == "MEMORY" else "left")
    for worker in workers:
        table.add_row(
            worker["id"],
            Text(worker["state"], STATE_STYLES.get(worker["state"], "")),
            f"{worker['busy']}/{worker['slots']}",
            f"{worker['device']}, {worker['device_name']}",
            bytes_text(worker["memory_bytes"]),
            " ".join(worker["queue_classes"]),
            age_text(worker["heartbeat_at"]),
        )
    return table
