"""The entry: builds the commands, runs one, and turns every deliberate error into a message and an exit code."""

from __future__ import annotations

import sys

import typer

from cli.commands import (
    admin,
    batches,
    calibration,
    compare,
    hub,
    jobs,
    keys,
    local,
    models,
    service,
    webhooks,
    workers,
)
from cli.errors import MEANINGS, CliError, complaint_from
from cli.output import complain
from core.errors import CoreError
from core.threads import leave_out_gpu_compiler, wait_briefly
from store.errors import StoreError

EPILOG = "\n\n".join(("Exit codes", *(f"{int(code):>3}  {meaning}" for code, meaning in MEANINGS.items())))


def build_app() -> typer.Typer:
    """Returns the program with all of its commands."""
    app = typer.Typer(
        name="bitmill",
        help="Quantizes language models: as a service (up, jobs), or right here (run).",
        epilog=EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command("up")(service.up)
    app.command("run")(local.run)
    app.command("eval")(local.evaluate)
    app.command("compare")(compare.compare)
    app.command("demo")(service.demo)
    app.command("hub-token")(hub.hub_token)
    app.add_typer(jobs.build_app(), name="jobs")
    app.add_typer(batches.build_app(), name="batches")
    app.add_typer(models.build_app(), name="models")
    app.add_typer(calibration.build_app(), name="calibration")
    app.add_typer(workers.build_app(), name="workers")
    app.add_typer(webhooks.build_app(), name="webhooks")
    app.add_typer(keys.build_app(), name="keys")
    app.add_typer(admin.build_app(), name="admin")
    return app


def main() -> None:
    """Runs the command that the arguments name and exits with its code."""
    wait_briefly()
    leave_out_gpu_compiler()
    try:
        build_app()()
    except (CliError, CoreError, StoreError) as error:
        complaint = complaint_from(error)
        complain(complaint, as_json="--json" in sys.argv)
        sys.exit(int(complaint.exit_code))
