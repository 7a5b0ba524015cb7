"""Turns a job's JSON into what a person reads: a table of many, the details of one, the outcome at the end."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from cli.output import age_text, bytes_text, duration_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table
    from rich.text import Text

STATE_STYLES = {
    "queued": "yellow",
    "running": "cyan",
    "cancelling": "yellow",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "dim",
}


def job_table(jobs: Sequence[dict[str, Any]]) -> Table:
    """Returns one row per job."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for column in ("ID", "STATE", "DONE", "MODEL", "METHOD", "CREATED"):
        table.add_column(column, no_wrap=column != "MODEL", justify="right" if column == "DONE" else "left")
    for job in jobs:
        table.add_row(
            job["id"],
            state_text(job),
            f"{job['progress']['fraction']:.0%}",
            model_text(job["spec"]["model"]),
            method_text(job["spec"]),
            age_text(job["created_at"]),
        )
    return table


def job_details(job: dict[str, Any]) -> Table:
    """Returns the facts of one job, one a line."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    progress = job["progress"]
    rows: list[tuple[str, str | Text]] = [
        ("job", job["id"]),
        ("state", state_text(job)),
        ("model", model_text(job["spec"]["model"])),
        ("method", method_text(job["spec"])),
        ("progress", f"{progress['fraction']:.0%}, block {progress['blocks_done']}/{progress['blocks_total']}"),
        ("attempt", f"{job['attempt']} ({job['failures']} of {job['max_attempts']} failures)"),
        ("created", age_text(job["created_at"])),
        ("labels", " ".join(f"{key}={value}" for key, value in job["labels"].items()) or "-"),
    ]
    if job["deadline_at"]:
        rows.append(("deadline", job["deadline_at"]))
    if job["error"]:
        rows.append(("error", f"{job['error']['message']} {job['error']['hint']}".strip()))
    rows.extend(("warning", str(warning.get("message", warning))) for warning in job["warnings"])
    for name, value in rows:
        table.add_row(name, value)
    return table


def outcome_text(job: dict[str, Any]) -> Text:
    """Returns one or two lines on how the job ended and what to do next."""
    from rich.text import Text

    state = state_text(job)
    if job["state"] == "succeeded":
        took = f" in {duration_text(job_seconds(job))}" if job["started_at"] else ""
        return Text.assemble(
            job["id"], " ", state, f"{took}\nFetch it with: bitmill jobs download {job['id']} --dst DIR"
        )
    if job["state"] == "failed" and job["error"]:
        return Text.assemble(job["id"], " ", state, f": {job['error']['message']}\n{job['error']['hint']}".rstrip())
    return Text.assemble(job["id"], " ", state)


def job_seconds(job: dict[str, Any]) -> float:
    """Returns the time from the job's start to its end."""
    return (datetime.fromisoformat(job["finished_at"]) - datetime.fromisoformat(job["started_at"])).total_seconds()


def state_text(job: dict[str, Any]) -> Text:
    """Returns the state in its colour, with the stage while it runs."""
    from rich.text import Text

    stage = f" ({job['stage']})" if job["state"] == "running" and job["stage"] else ""
    return Text(f"{job['state']}{stage}", style=STATE_STYLES.get(job["state"], ""))


def model_text(model: dict[str, Any]) -> str:
    """Returns the model's name as the service shows it, never a path outside of its root."""
    if model.get("source") == "hub":
        return f"{model['repo']}@{model['revision'][:8]}" if model.get("revision") else str(model["repo"])
    if model.get("source") == "upload":
        return str(model["name"])
    return f"{model['root']}:{model['path']}" if model.get("root") else str(model["path"])


def method_text(spec: dict[str, Any]) -> str:
    """Returns the method and its grid, as in `gptq w4 g64`, or under what it chooses grids: `gptq under 3.5 bits`."""
    asym = "" if spec["sym"] else " asym"
    if spec.get("budget"):
        return f"{spec['method']} under {_limit_text(spec['budget'])}{asym}"
    group = "row" if spec["group_size"] == -1 else spec["group_size"]
    return f"{spec['method']} w{spec['bits']} g{group}{asym}"


def _limit_text(budget: dict[str, Any]) -> str:
    limits = [
        f"{budget['bits']:g} bits" if budget["bits"] else "",
        bytes_text(budget["bytes"]) if budget["bytes"] else "",
    ]
    return " and ".join(filter(None, limits))
