"""`bitmill models`: models that are uploaded to a running service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import ApiKeyOption, JsonOption, PinOption, UntilOption, UrlOption

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="mdl_... as `models list` shows it.")]


def build_app() -> typer.Typer:
    """Returns the group of commands."""
    app = typer.Typer(help="Models that are uploaded to a running service, over HTTP.", no_args_is_help=True)
    app.command("upload")(upload)
    app.command("list")(list_models)
    app.command("show")(show)
    app.command("keep")(keep)
    app.command("delete")(delete)
    return app


def upload(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder, or a tar or zip archive of one.")],
    name: Annotated[str | None, typer.Option("--name", help="Shown in lists.", show_default="the file's name")] = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_output: JsonOption = False,
) -> None:
    """Upload a model, for services that cannot read your disk. A folder is packed while it is sent."""
    from cli.models import upload_model

    upload_model(model, name=name, url=url, api_key=api_key, as_json=json_output)


def list_models(url: UrlOption = None, api_key: ApiKeyOption = None, json_output: JsonOption = False) -> None:
    """List uploaded models, newest first."""
    from cli.models import list_models as show_all

    show_all(url=url, api_key=api_key, as_json=json_output)


def show(
    model_id: IdArgument, url: UrlOption = None, api_key: ApiKeyOption = None, json_output: JsonOption = False
) -> None:
    """Show one uploaded model with its files and their hashes."""
    from cli.models import show_model

    show_model(model_id, url=url, api_key=api_key, as_json=json_output)


def keep(
    model_id: IdArgument,
    pin: PinOption = None,
    until: UntilOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_output: JsonOption = False,
) -> None:
    """Pin an uploaded model, or set when it goes."""
    from cli.keeping import keep as keep_it
    from cli.models import PATH

    keep_it(f"{PATH}/{model_id}", pin=pin, until=until, url=url, api_key=api_key, as_json=json_output)


def delete(
    model_id: IdArgument, url: UrlOption = None, api_key: ApiKeyOption = None, json_output: JsonOption = False
) -> None:
    """Delete an uploaded model; not while a job that is not over needs it."""
    from cli.keeping import remove
    from cli.models import PATH

    remove(f"{PATH}/{model_id}", url=url, api_key=api_key, as_json=json_output)
