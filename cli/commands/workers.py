"""`bitmill workers`: who does the work, over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import ApiKeyOption, JsonOption, UrlOption

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="As `workers list` shows it.")]


def build_app() -> typer.Typer:
    """Returns the group of commands."""
    app = typer.Typer(help="Workers of a running service, over HTTP.", no_args_is_help=True)
    app.command("list")(list_workers)
    app.command("drain")(drain)
    app.command("resume")(resume)
    return app


def list_workers(url: UrlOption = None, api_key: ApiKeyOption = None, json_output: JsonOption = False) -> None:
    """List workers with their device, memory and jobs, and the room that each queue class has."""
    from cli.workers import list_workers as show

    show(url=url, api_key=api_key, as_json=json_output)


def drain(
    worker_id: IdArgument, url: UrlOption = None, api_key: ApiKeyOption = None, json_output: JsonOption = False
) -> None:
    """Let a worker finish its block, give its job back uncounted, and take no more."""
    from cli.workers import act_on_worker

    act_on_worker(worker_id, "drain", url=url, api_key=api_key, as_json=json_output)


def resume(
    worker_id: IdArgument, url: UrlOption = None, api_key: ApiKeyOption = None, json_output: JsonOption = False
) -> None:
    """Let a drained worker take jobs again."""
    from cli.workers import act_on_worker

    act_on_worker(worker_id, "resume", url=url, api_key=api_key, as_json=json_output)
