"""`bitmill keys`: bearer keys, straight in the database, so that the first one needs no running service."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.commands.service import DataDirOption
from cli.options import JsonOption


def build_app() -> typer.Typer:
    """Returns the group of commands."""
    app = typer.Typer(help="Bearer keys of the service (reads the database, no service needed).", no_args_is_help=True)
    app.command("create")(create)
    app.command("list")(list_keys)
    app.command("revoke")(revoke)
    return app


def create(
    name: Annotated[str, typer.Argument(help="What the key is for; shown in lists.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            help="What it may do; give it again for more.",
            show_default="jobs:read jobs:write artifacts:read",
        ),
    ] = None,
    expires_days: Annotated[int | None, typer.Option("--expires-days", min=1, help="Days until it ends.")] = None,
    max_jobs: Annotated[int | None, typer.Option("--max-jobs", min=0, help="Jobs that are not over.")] = None,
    max_stored_bytes: Annotated[
        int | None, typer.Option("--max-stored-bytes", min=0, help="Bytes of its finished jobs' files.")
    ] = None,
    max_calibration_bytes: Annotated[
        int | None, typer.Option("--max-calibration-bytes", min=0, help="Bytes of its calibration sets.")
    ] = None,
    max_model_bytes: Annotated[
        int | None, typer.Option("--max-model-bytes", min=0, help="Bytes of its uploaded models.")
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option("--requests-per-minute", min=1, help="Requests to each API process.")
    ] = None,
    data_dir: DataDirOption = None,
    json_output: JsonOption = False,
) -> None:
    """Create a key. It is shown once; only its hash is stored."""
    from cli.admin import KeyWish, create_key
    from store.keys import Quotas

    quotas = Quotas(
        jobs_in_flight=max_jobs,
        stored_bytes=max_stored_bytes,
        calibration_bytes=max_calibration_bytes,
        model_bytes=max_model_bytes,
        requests_per_minute=requests_per_minute,
    )
    wish = KeyWish(name=name, scopes=scope, expires_days=expires_days, quotas=quotas)
    create_key(wish, data_dir=data_dir, as_json=json_output)


def list_keys(data_dir: DataDirOption = None, json_output: JsonOption = False) -> None:
    """List keys, without their secrets."""
    from cli.admin import list_keys as show

    show(data_dir=data_dir, as_json=json_output)


def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="key_... as `keys list` shows it.")],
    data_dir: DataDirOption = None,
    json_output: JsonOption = False,
) -> None:
    """Revoke a key, at once and for good."""
    from cli.admin import revoke_key

    revoke_key(key_id=key_id, data_dir=data_dir, as_json=json_output)
