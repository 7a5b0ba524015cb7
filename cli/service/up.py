"""`bitmill up`: from the options to a running launcher, and what it prints."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from cli.demo_model import prepare_smollm2
from cli.output import err, out
from cli.service.launcher import Launcher, ServiceOptions
from cli.settings import service_environment
from cli.store_access import store_settings
from store.session import Database

if TYPE_CHECKING:
    from pathlib import Path

    from store.settings import StoreSettings


def run_service(*, data_dir: Path | None, host: str, port: int, demo_model: bool, as_json: bool) -> None:
    """Serves until a stop signal; raises CliError if the service cannot start.

    demo_model: whether the demo's model is fetched first.
    """
    settings = store_settings(data_dir)
    options = ServiceOptions(
        data_dir=settings.data_dir,
        host=host,
        port=port,
        environment=service_environment(data_dir=str(settings.data_dir), host=host, port=str(port)),
    )
    note = _json_note if as_json else _text_note
    if demo_model:
        prepare_smollm2(settings.cache_dir, lambda text: note("note", text=f"{text} ..."))
    launcher = Launcher(
        options, migrate=lambda: migrate_database(settings), report=lambda text: note("note", text=text)
    )

    def announce() -> None:
        roots = ", ".join(str(root.path) for root in settings.model_roots)
        note(
            "ready",
            url=options.url,
            data_dir=str(options.data_dir),
            model_roots=roots,
            pid=os.getpid(),
            processes=launcher.processes,
        )

    launcher.run(on_ready=announce)
    note("stopped", text="Stopped; no process is left.")


def migrate_database(settings: StoreSettings) -> None:
    """Brings the database to the newest schema; raises StorageUnavailableError if it does not answer."""
    database = Database(settings.database_url)
    try:
        database.upgrade()
    finally:
        database.dispose()


def _json_note(event: str, **fields: object) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def _text_note(event: str, **fields: object) -> None:
    if event == "ready":
        out().print(
            f"[bold green]Bitmill is up[/] at [bold]{fields['url']}[/]\n"
            f"  page      {fields['url']}/\n"
            f"  API       {fields['url']}/v1, described in {fields['url']}/openapi.json\n"
            f"  models    in {fields['model_roots']}, or from the hub\n"
            f"  data      {fields['data_dir']}\n"
            f"  logs      {fields['data_dir']}/logs/api.log, worker.log\n"
            "  stop      Ctrl-C: a running job finishes its block and goes on at the next start"
        )
    else:
        err().print(f"{fields['text']}", soft_wrap=True)
