"""Turns results into terminal output: results go to stdout, progress and complaints to stderr.

With `--json`, stdout carries JSON only, so that a pipe never has to guess.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from cli.errors import Complaint

PIPE_COLUMNS = 200


def out() -> Console:
    """Returns a console for results."""
    from rich.console import Console

    # A pipe has no width of its own: lines stay whole for grep.
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPE_COLUMNS)


def err() -> Console:
    """Returns a console for progress and messages."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_json(value: object) -> None:
    """Writes one JSON document to stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def complain(complaint: Complaint, *, as_json: bool) -> None:
    """Writes one error to stderr: a sentence and its remedy, or a JSON object."""
    if as_json:
        sys.stderr.write(json.dumps({"error": {**asdict(complaint), "exit_code": int(complaint.exit_code)}}) + "\n")
        return
    from rich.text import Text

    console = err()
    console.print(Text.assemble(("error: ", "bold red"), complaint.message), soft_wrap=True)
    if complaint.hint:
        console.print(Text.assemble(("  fix: ", "bold"), complaint.hint), soft_wrap=True)


def bytes_text(count: float) -> str:
    """Returns 88.1 MB for 88_100_000; decimal units, as disks and downloads are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:  # noqa: PLR2004 - the step between decimal units
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration_text(seconds: float) -> str:
    """Returns 42 s, 3 min 05 s or 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004 - seconds in a minute
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:  # noqa: PLR2004 - minutes in an hour
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min"


def age_text(timestamp: str | None, now: datetime | None = None) -> str:
    """Returns how long ago an RFC 3339 time was, or a dash."""
    if not timestamp:
        return "-"
    moment = datetime.fromisoformat(timestamp)
    return f"{duration_text(max(((now or datetime.now(UTC)) - moment).total_seconds(), 0.0))} ago"
