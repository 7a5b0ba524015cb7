"""`bitmill jobs`: the service over HTTP, on this machine or another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.calibration_text import WORDS, CalibrationSource
from cli.options import (
    ApiKeyOption,
    BudgetOptions,
    CalibrationOptions,
    FormatOption,
    JsonOption,
    PinOption,
    QuantizationOptions,
    TargetOption,
    UntilOption,
    UrlOption,
    takes_options,
)
from core.configs import Method

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="job_... as `submit` and `list` show it.")]


def build_app() -> typer.Typer:
    """Returns the group of commands."""
    app = typer.Typer(help="Jobs of a running service, over HTTP.", no_args_is_help=True)
    app.command("submit")(submit)
    app.command("list")(list_jobs)
    app.command("get")(get)
    app.command("watch")(watch)
    app.command("cancel")(cancel)
    app.command("retry")(retry)
    app.command("download")(download)
    app.command("keep")(keep)
    app.command("publish")(publish)
    return app


@takes_options
def submit(
    quantization: QuantizationOptions,
    calibration: CalibrationOptions,
    budget: BudgetOptions,
    model: Annotated[
        str, typer.Option("--model", help="Folder that the service can read, hub id (owner/name), or upload (mdl_...).")
    ],
    calib: Annotated[
        str | None,
        typer.Option("--calib", metavar="FILE|hub:NAME|self", help=WORDS, show_default="built-in text"),
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Commit of the hub model.")] = None,
    target: TargetOption = None,
    formats: FormatOption = None,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="K=V", help="Give it again for more.")] = None,
    priority: Annotated[int | None, typer.Option("--priority", help="Higher goes first.", show_default="0")] = None,
    deadline: Annotated[
        int | None,
        typer.Option("--deadline", metavar="SECONDS", help="From now; a job that is not over by then fails."),
    ] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Let the worker measure the artifact against the float model.")
    ] = False,
    nf4: Annotated[
        bool, typer.Option("--nf4/--no-nf4", help="With --evaluate: measure NF4 beside it, in a pass of its own.")
    ] = True,
    idempotency_key: Annotated[
        str | None,
        typer.Option("--idempotency-key", help="The same key never makes a second job.", show_default="a fresh one"),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Watch the job until it ends.")] = False,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_output: JsonOption = False,
) -> None:
    """Submit a job."""
    from cli.jobs import Submission, submit_job

    submit_job(
        Submission(
            model=model,
            revision=revision,
            source=CalibrationSource(calib),
            quantization=quantization,
            calibration=calibration,
            budget=budget,
            targets=tuple(str(name) for name in target or ()),
            formats=tuple(str(name) for name in formats or ()),
            labels=tuple(label or ()),
            priority=priority,
            deadline=deadline,
            evaluate=evaluate,
            nf4=nf4,
            idempotency_key=idempotency_key,
        ),
        url=url,
        api_key=api_key,
        wait=wait,
        as_json=json_output,
    )


def list_jobs(
    state: Annotated[str | None, typer.Option("--state", help="Only jobs in this state.")] = None,
    method: Annotated[Method | None, typer.Option("--method", help="Only jobs of this method.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Only jobs on this model.")] = None,
    label: Annotated[str | None, typer.Option("--label", metavar="K=V", help="Only jobs with this label.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Newest jobs shown.")] = 20,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_output: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    from cli.jobs import JobQuery
    from cli.jobs import list_jobs as show

    query = JobQuery(state=state, method=str(method) if method else None, model=model, label=label, limit=limit)
    show(query, url=url, api_key=api_key, as_json=json_output)


def get(
    job_id: IdArgument, url: UrlOption = None, api_key: ApiKeyOption = None, json_output: JsonOption = False
) -> None:
    """Show one job."""
    from cli.jobs import get_job

    get_job(job_id, url=url, api_key=api_key, as_json=json_output)


def watch(
    job_id: IdArgument, url: UrlOption = None, api_key: ApiKeyOption = None, json_output: JsonOption = False
) -> None:
    """Follow a job until it ends; the exit code says how: 0 succeeded, 1 failed, 5 cancelled."""
    from cli.jobs import watch_job

    watch_job(job_id, url=url, api_key=api_key, as_json=json_output)


def cancel(
    job_id: IdArgument, url: UrlOption = None, api_key: ApiKeyOption = None, json_output: JsonOption = False
) -> None:
    """Cancel a job: a queued one at once, a running one at its next batch."""
    from cli.jobs import cancel_job

    cancel_job(job_id, url=url, api_key=api_key, as_json=json_output)


def retry(
    job_id: IdArgument, url: UrlOption = None, api_key: ApiKeyOption = None, json_output: JsonOption = False
) -> None:
    """Queue a failed or cancelled job again."""
    from cli.jobs import retry_job

    retry_job(job_id, url=url, api_key=api_key, as_json=json_output)


def download(
    job_id: IdArgument,
    dst: Annotated[Path, typer.Option("--dst", help="Folder for the files; a broken-off download goes on there.")],
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_output: JsonOption = False,
) -> None:
    """Download a job's artifact and verify every file against SHA256SUMS."""
    from cli.jobs import download_artifact

    download_artifact(job_id, dst=dst, url=url, api_key=api_key, as_json=json_output)


def keep(
    job_id: IdArgument,
    pin: PinOption = None,
    until: UntilOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_output: JsonOption = False,
) -> None:
    """Pin a job's files, or set when they go."""
    from cli.keeping import keep as keep_it

    keep_it(f"/v1/jobs/{job_id}", pin=pin, until=until, url=url, api_key=api_key, as_json=json_output)


def publish(
    job_id: IdArgument,
    repo: Annotated[str, typer.Argument(metavar="REPO", help="owner/name on the hub; made where it is not there.")],
    public: Annotated[bool, typer.Option("--public", help="Make the repository a public one.")] = False,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_output: JsonOption = False,
) -> None:
    """Let a worker upload a job's files to the model hub, with the token of `bitmill hub-token`."""
    from cli.hub import publish_job

    publish_job(job_id, repo, public=public, url=url, api_key=api_key, as_json=json_output)
