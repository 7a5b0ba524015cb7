"""`bitmill admin`: what an operator runs against the database before and beside the service."""

from __future__ import annotations

import typer

from cli.commands.service import DataDirOption
from cli.options import JsonOption


def build_app() -> typer.Typer:
    """Returns the group of commands."""
    app = typer.Typer(help="For operators: the database's schema and the service's parts.", no_args_is_help=True)
    app.command("migrate")(migrate)
    app.command("check")(check)
    return app


def migrate(data_dir: DataDirOption = None, json_output: JsonOption = False) -> None:
    """Bring the database to the newest schema. `bitmill up` does it by itself; compose runs it once."""
    from cli.admin import migrate as bring_up

    bring_up(data_dir=data_dir, as_json=json_output)


def check(data_dir: DataDirOption = None, json_output: JsonOption = False) -> None:
    """Check that the database and the broker answer; the worker container's health check."""
    from cli.admin import check as look

    look(data_dir=data_dir, as_json=json_output)
