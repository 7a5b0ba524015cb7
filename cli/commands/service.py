"""`bitmill up` and `bitmill demo`: the whole service on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import JsonOption

DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Where everything lives; else BITMILL_DATA_DIR.",
        show_default="~/.local/share/bitmill",
        file_okay=False,
    ),
]


def up(
    data_dir: DataDirOption = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; any but loopback needs a key (bitmill keys create).")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")] = 8080,
    demo_model: Annotated[
        bool,
        typer.Option(
            "--demo-model", help="Fetch SmolLM2-135M-Instruct into the cache first, to have something to try."
        ),
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Run the service: API, page and one worker, with nothing else to install.

    Migrates the database, starts both processes, restarts what dies, and ends cleanly on Ctrl-C: a running job
    finishes its block and goes on at the next start. A second Ctrl-C stops at once.
    """
    from cli.service.up import run_service

    run_service(data_dir=data_dir, host=host, port=port, demo_model=demo_model, as_json=json_output)


def demo(
    dst: Annotated[
        Path, typer.Option("--dst", help="Folder for the demo's data and its artifact; made anew.", file_okay=False)
    ] = Path("var/demo"),
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", help="Model folder to show it on.", show_default="SmolLM2-135M-Instruct", file_okay=False
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Port to use.", show_default="8080 or a free one")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the service up at the end.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Show the whole product on a real model: submit over HTTP, watch, download, verify, measure, generate."""
    from cli.demo import run_demo

    run_demo(dst=dst, model=model, port=port, keep=keep, as_json=json_output)
