"""Follows what runs at the service: polls with an ETag and hands on what changed; one job is shown until it ends."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cli.errors import CliError, ExitCode
from cli.progress_view import ProgressState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cli.client import ServiceClient
    from cli.progress_view import ProgressView

POLL_SECONDS = 0.5
# How long a service may be away (a restart, a failover) before the watch gives up; the job itself is not affected.
OUTAGE_SECONDS = 60.0
TERMINAL = {"succeeded": ExitCode.OK, "failed": ExitCode.FAILED, "cancelled": ExitCode.CANCELLED}


def changes(client: ServiceClient, path: str, on_outage: Callable[[CliError], None]) -> Iterator[dict[str, Any]]:
    """Yields what is at a path, and again whenever it has changed, without end; on_outage: is told of no answer.

    Raises CliError where the service stays away for longer than OUTAGE_SECONDS, or has nothing there.
    """
    etag: str | None = None
    answered_at = time.monotonic()
    while True:
        try:
            found, etag = client.get_changed(path, etag)
            answered_at = time.monotonic()
        except CliError as error:
            if error.exit_code is not ExitCode.UNAVAILABLE or time.monotonic() - answered_at > OUTAGE_SECONDS:
                raise
            etag = None
            on_outage(error)
        else:
            if found is not None:
                yield found
        time.sleep(POLL_SECONDS)


def follow(client: ServiceClient, job_id: str, view: ProgressView) -> dict[str, Any]:
    """Shows the job's progress until it is over and returns the whole job; raises as `changes` does."""

    def lost(error: CliError) -> None:
        view.show(ProgressState(label="no answer", fraction=0.0, detail=f"{error.message} Asking again."))

    for progress in changes(client, f"/v1/jobs/{job_id}/progress", lost):
        view.show(state_from(progress))
        if progress["state"] in TERMINAL:
            break
    return client.get(f"/v1/jobs/{job_id}")


def state_from(progress: dict[str, Any]) -> ProgressState:
    """Returns what the bar shows for a progress answer."""
    running = progress["state"] == "running"
    eta_at = progress["eta_at"]
    return ProgressState(
        label=(progress["stage"] or "running") if running else progress["state"],
        fraction=progress["fraction"],
        blocks_done=progress["blocks_done"],
        blocks_total=progress["blocks_total"],
        eta_at=datetime.fromisoformat(eta_at).timestamp() if running and eta_at else None,
        detail=_detail(progress),
    )


def _detail(progress: dict[str, Any]) -> str:
    if not progress["last_linear"]:
        return "waiting for a worker" if progress["state"] == "queued" else ""
    loss = "" if progress["last_loss"] is None else f"  loss {progress['last_loss']:.4g}"
    return f"{progress['last_linear']}{loss}"
