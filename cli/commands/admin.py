"""`bitmill admin`: what an operator runs against the database before and beside the service."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.commands.service import DataDirOption
from cli.options import JsonOption


def build_app() -> typer.Typer:
    """Returns the group of commands."""
    app = typer.Typer(help="For operators: the database, its jobs and the service's parts.", no_args_is_help=True)
    app.command("migrate")(migrate)
    app.command("check")(check)
    app.command("sweep")(sweep)
    app.command("requeue")(requeue)
    app.command("export")(export)
    return app


def migrate(data_dir: DataDirOption = None, json_output: JsonOption = False) -> None:
    """Bring the database to the newest schema. `bitmill up` does it by itself; compose runs it once."""
    from cli.admin import migrate as bring_up

    bring_up(data_dir=data_dir, as_json=json_output)


def check(data_dir: DataDirOption = None, json_output: JsonOption = False) -> None:
    """Check that the database and the broker answer; the worker container's health check."""
    from cli.admin import check as look

    look(data_dir=data_dir, as_json=json_output)


def sweep(
    grace_hours: Annotated[
        float, typer.Option("--grace-hours", min=0.0, help="How long uploaded bytes are kept that no row refers to.")
    ] = 24.0,
    data_dir: DataDirOption = None,
    json_output: JsonOption = False,
) -> None:
    """Take jobs back from silent workers and free unused bytes now, where no worker is there to do it.

    A grace shorter than the longest upload removes the bytes of an upload that is under way.
    """
    from cli.maintenance import sweep as sweep_now

    sweep_now(grace_hours=grace_hours, data_dir=data_dir, as_json=json_output)


def requeue(
    job_ids: Annotated[list[str] | None, typer.Argument(metavar="JOB_ID ...", help="Failed or cancelled jobs.")] = None,
    all_failed: Annotated[bool, typer.Option("--all-failed", help="Every failed job instead.")] = False,
    data_dir: DataDirOption = None,
    json_output: JsonOption = False,
) -> None:
    """Queue failed or cancelled jobs of any owner again, with a fresh retry budget: all of them or none."""
    from cli.maintenance import requeue as queue_again

    queue_again(job_ids=job_ids or [], all_failed=all_failed, data_dir=data_dir, as_json=json_output)


def export(
    target_url: Annotated[
        str, typer.Option("--to", metavar="URL", help="Database to copy to, empty: postgresql+psycopg://... .")
    ],
    data_dir: DataDirOption = None,
    json_output: JsonOption = False,
) -> None:
    """Copy every row into another, empty database, such as from SQLite to PostgreSQL: all of them or none.

    Stop the service first. Artifacts stay where they are; streams of events begin anew.
    """
    from cli.maintenance import export as copy_rows

    copy_rows(target_url=target_url, data_dir=data_dir, as_json=json_output)
