"""`bitmill calibration`: texts that are stored in a running service."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import ApiKeyOption, JsonOption, PinOption, UntilOption, UrlOption

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="cal_... as `calibration list` shows it.")]


def build_app() -> typer.Typer:
    """Returns the group of commands."""
    app = typer.Typer(help="Calibration texts that are stored in a running service, over HTTP.", no_args_is_help=True)
    app.command("list")(list_sets)
    app.command("show")(show)
    app.command("keep")(keep)
    app.command("delete")(delete)
    return app


def list_sets(url: UrlOption = None, api_key: ApiKeyOption = None, json_output: JsonOption = False) -> None:
    """List stored texts, newest first; `jobs submit --calib FILE` stores one."""
    from cli.calibration_sets import list_sets as show_all

    show_all(url=url, api_key=api_key, as_json=json_output)


def show(
    set_id: IdArgument, url: UrlOption = None, api_key: ApiKeyOption = None, json_output: JsonOption = False
) -> None:
    """Show one stored text with what a look over it found."""
    from cli.calibration_sets import show_set

    show_set(set_id, url=url, api_key=api_key, as_json=json_output)


def keep(
    set_id: IdArgument,
    pin: PinOption = None,
    until: UntilOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_output: JsonOption = False,
) -> None:
    """Pin a stored text, or set when it goes."""
    from cli.calibration_sets import PATH
    from cli.keeping import keep as keep_it

    keep_it(f"{PATH}/{set_id}", pin=pin, until=until, url=url, api_key=api_key, as_json=json_output)


def delete(
    set_id: IdArgument, url: UrlOption = None, api_key: ApiKeyOption = None, json_output: JsonOption = False
) -> None:
    """Delete a stored text; not while a job that is not over needs it."""
    from cli.calibration_sets import PATH
    from cli.keeping import remove

    remove(f"{PATH}/{set_id}", url=url, api_key=api_key, as_json=json_output)
