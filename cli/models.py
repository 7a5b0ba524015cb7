"""What `bitmill models` does: models that were uploaded as archives, over HTTP."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from cli.client import ServiceClient
from cli.errors import CliError, ExitCode
from cli.keeping import kept_text
from cli.model_pack import PackedFolder, SentStream, file_pieces
from cli.output import age_text, bytes_text, err, out, print_json
from cli.progress_view import ProgressState, progress_view
from cli.settings import client_settings
from core.preflight.source import inspect_source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.table import Table

PATH = "/v1/uploaded-models"


def upload_model(source: Path, *, name: str | None, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Sends a folder, packed as it goes, or an archive, and prints the model's id.

    Raises ModelRefusedError for a folder that no job could use, before a byte is sent.
    """
    stream_of, size_bytes, file_name = _content(source)
    started_at = time.time()
    with ServiceClient(client_settings(url, api_key)) as client, progress_view(err()) as view:

        def show(sent: int) -> None:
            left = (time.time() - started_at) * (size_bytes - sent) / max(sent, 1)
            label = "uploading" if sent < size_bytes else "checking"
            detail = f"{bytes_text(sent)} of {bytes_text(size_bytes)}"
            view.show(ProgressState(label=label, fraction=sent / size_bytes, eta_at=time.time() + left, detail=detail))

        model = client.send_file(PATH, file_name, stream_of(show), name=name or source.resolve().name)
    if as_json:
        print_json(model)
        return
    out().print(model["id"])
    err().print(f"{model['name']}: {model['files']} files, {bytes_text(model['size_bytes'])}.", style="dim")
    err().print(f"Quantize it with: bitmill jobs submit --model {model['id']}", style="dim")


def list_models(*, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Prints the newest models first."""
    with ServiceClient(client_settings(url, api_key)) as client:
        models = client.get(PATH)["data"]
    if as_json:
        print_json({"models": models})
    else:
        out().print(model_table(models) if models else "No model is uploaded.")


def show_model(model_id: str, *, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Prints one model and its files."""
    with ServiceClient(client_settings(url, api_key)) as client:
        model = client.get(f"{PATH}/{model_id}")
    if as_json:
        print_json(model)
        return
    console = out()
    console.print(model_table([model]))
    for file in model["contents"]:
        console.print(f"{file['sha256']}  {file['name']}  ({bytes_text(file['size_bytes'])})", style="dim")


def model_table(models: Sequence[dict[str, Any]]) -> Table:
    """Returns one row per model."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for column in ("ID", "NAME", "TYPE", "SIZE", "FILES", "STORED", "KEPT"):
        table.add_column(column, no_wrap=column == "ID", justify="right" if column in {"SIZE", "FILES"} else "left")
    for model in models:
        table.add_row(
            model["id"],
            model["name"],
            model["model_type"],
            bytes_text(model["size_bytes"]),
            str(model["files"]),
            age_text(model["created_at"]),
            kept_text(model),
        )
    return table


def _content(source: Path) -> tuple[Callable[[Callable[[int], None]], IO[bytes]], int, str]:
    """Returns what makes the stream out of a listener, its length, and the file name that it is sent under."""
    try:
        if source.is_dir():
            inspect_source(source)
            packed = PackedFolder(source)
            pieces, size_bytes, file_name = packed.pieces, packed.size_bytes, f"{source.resolve().name}.tar"
        else:
            pieces, size_bytes, file_name = partial(file_pieces, source), source.stat().st_size, source.name
    except OSError as error:
        raise CliError(
            ExitCode.USAGE,
            f"{source} cannot be read: {error.strerror}.",
            hint="Give a model folder, or a .tar, .tar.gz, .tar.bz2 or .zip of one.",
            code="model_unreadable",
            field="MODEL",
        ) from error
    return lambda show: cast("IO[bytes]", SentStream(pieces(), size_bytes, show)), size_bytes, file_name
