"""`bitmill batches`: many jobs of a running service at once, over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.calibration_text import WORDS, CalibrationSource
from cli.options import (
    ApiKeyOption,
    CalibrationOptions,
    FormatOption,
    JsonOption,
    TargetOption,
    UrlOption,
    takes_options,
)
from cli.sweep import SweepBudgets, SweepOptions

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="batch_... as `submit` and `list` show it.")]


def build_app() -> typer.Typer:
    """Returns the group of commands."""
    app = typer.Typer(help="Many jobs at once, side by side.", no_args_is_help=True)
    app.command("submit")(submit)
    app.command("list")(list_batches)
    app.command("show")(show)
    app.command("watch")(watch)
    return app


@takes_options
def submit(
    options: SweepOptions,
    calibration: CalibrationOptions,
    budgets: SweepBudgets,
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="JSON as POST /v1/batches takes it; - for stdin."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", help="Folder that the service can read, hub id (owner/name[@revision]), or upload (mdl_...)."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="What the batch is called.")] = None,
    calib: Annotated[
        str | None,
        typer.Option("--calib", metavar="FILE|hub:NAME|self", help=WORDS, show_default="built-in text"),
    ] = None,
    target: TargetOption = None,
    formats: FormatOption = None,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="K=V", help="Of every job.")] = None,
    priority: Annotated[int | None, typer.Option("--priority", help="Higher goes first.", show_default="0")] = None,
    deadline: Annotated[
        int | None,
        typer.Option("--deadline", metavar="SECONDS", help="From now; each job that is not over by then fails."),
    ] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Let workers measure the artifacts against the float model.")
    ] = False,
    nf4: Annotated[
        bool, typer.Option("--nf4/--no-nf4", help="With --evaluate: measure NF4 beside them, in a pass of its own.")
    ] = True,
    idempotency_key: Annotated[
        str | None,
        typer.Option("--idempotency-key", help="The same key never makes a second batch.", show_default="a fresh one"),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Watch the jobs until all of them are over.")] = False,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_output: JsonOption = False,
) -> None:
    """Submit every combination of models and options as a job of its own, all or none.

    What may be given again is a value more: --model A --model B --bits 4 --bits 3 makes four jobs, and so does
    --budget-bits. A method leaves out options that only another of the chosen methods has.
    """
    from cli.batches import Submission, Sweep, submit_batch

    sweep = Sweep(
        models=tuple(model or ()),
        source=CalibrationSource(calib),
        options=options,
        calibration=calibration,
        budgets=budgets,
        targets=tuple(str(one) for one in target or ()),
        formats=tuple(str(one) for one in formats or ()),
        labels=tuple(label or ()),
        evaluate=evaluate,
        nf4=nf4,
        priority=priority,
        deadline=deadline,
    )
    submit_batch(
        Submission(file=file, sweep=sweep, name=name, idempotency_key=idempotency_key),
        wait=wait,
        url=url,
        api_key=api_key,
        as_json=json_output,
    )


def list_batches(
    limit: Annotated[int, typer.Option("--limit", min=1, help="Newest batches shown.")] = 20,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_output: JsonOption = False,
) -> None:
    """List batches, newest first, with the states of their jobs."""
    from cli.batches import list_batches as show_all

    show_all(limit, url=url, api_key=api_key, as_json=json_output)


def show(
    batch_id: IdArgument, url: UrlOption = None, api_key: ApiKeyOption = None, json_output: JsonOption = False
) -> None:
    """Show the jobs of a batch."""
    from cli.batches import show_batch

    show_batch(batch_id, url=url, api_key=api_key, as_json=json_output)


def watch(
    batch_id: IdArgument, url: UrlOption = None, api_key: ApiKeyOption = None, json_output: JsonOption = False
) -> None:
    """Follow a batch until all jobs are over; the exit code: 0 all succeeded, 1 one failed, 5 one was cancelled."""
    from cli.batches import watch_batch

    watch_batch(batch_id, url=url, api_key=api_key, as_json=json_output)
