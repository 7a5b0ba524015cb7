"""What `bitmill admin sweep`, `requeue` and `export` do: an operator's work on the database, beside the service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.errors import CliError, ExitCode
from cli.output import err, out, print_json
from cli.store_access import open_database, open_other_database, store_settings
from store.artifacts import ArtifactStore
from store.jobs import JobFilter, JobState
from store.sweep import sweep_blobs
from store.transfer import copy_database

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from store.repository import Repository

PAGE = 200


def sweep(*, grace_hours: float, data_dir: Path | None, as_json: bool) -> None:
    """Takes jobs back from silent workers, ends overdue ones, frees unused bytes, as every worker does by itself."""
    with open_database(data_dir) as database:
        with database.transaction() as repository:
            rescued = repository.rescue_expired()
            overdue = repository.fail_overdue()
            repository.remove_expired_sessions()
        artifacts = ArtifactStore.from_settings(store_settings(data_dir), database.reserve_blob)
        removed = sweep_blobs(database, artifacts, older_than_seconds=grace_hours * 3600)
    if as_json:
        print_json({"jobs_taken_back": list(rescued), "jobs_overdue": list(overdue), "blobs_removed": removed})
        return
    out().print(
        f"{len(rescued)} jobs were taken back from silent workers; {len(overdue)} failed past their deadline; "
        f"{removed} blobs were removed."
    )


def requeue(*, job_ids: Sequence[str], all_failed: bool, data_dir: Path | None, as_json: bool) -> None:
    """Queues failed or cancelled jobs again, of whatever owner: all of them, or none where one is refused."""
    if bool(job_ids) == all_failed:
        raise CliError(
            ExitCode.USAGE,
            "Jobs are named one by one or taken by --all-failed, one of the two.",
            hint="bitmill admin requeue JOB_ID ..., or bitmill admin requeue --all-failed.",
            code="no_jobs_named",
            field="JOB_ID",
        )
    with open_database(data_dir) as database, database.transaction() as repository:
        queued = _requeue_failed(repository) if all_failed else [repository.retry(job_id).id for job_id in job_ids]
    if as_json:
        print_json({"requeued": queued})
        return
    out().print(f"{len(queued)} jobs wait for a worker again.")


def _requeue_failed(repository: Repository) -> list[str]:
    queued: list[str] = []
    # What is queued again is failed no longer, so the first page is always the next one.
    while page := repository.list_jobs(None, JobFilter(states=(JobState.FAILED,)), PAGE):
        queued += [repository.retry(job.id).id for job in page]
    return queued


def export(*, target_url: str, data_dir: Path | None, as_json: bool) -> None:
    """Copies every row of this installation into another, empty database."""
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn())
    with (
        open_database(data_dir) as source,
        open_other_database(target_url) as target,
        Progress(*columns, console=err(), transient=True) as progress,
    ):
        task = progress.add_task("")

        def show(table: str, rows: int, total: int) -> None:
            progress.update(task, description=table, completed=rows, total=total)

        copied = copy_database(source, target, show)
    if as_json:
        print_json({"copied": dict(copied)})
    else:
        _print_copied(copied)


def _print_copied(copied: Mapping[str, int]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("TABLE")
    table.add_column("ROWS", justify="right")
    for name, rows in copied.items():
        table.add_row(name, f"{rows:,}")
    console = out()
    console.print(table)
    console.print("Set BITMILL_DATABASE_URL to the new database for the API and the workers, then start them.")
