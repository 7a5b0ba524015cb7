"""`bitmill compare`: jobs of a service side by side, each beside the float model that it was made from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cli.client import ServiceClient
from cli.compare_table import compare_table, legend, not_measured
from cli.errors import CliError, ExitCode
from cli.job_text import job_seconds, model_text
from cli.output import out, print_json
from cli.settings import client_settings

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One job as a row. artifact_bytes: all of its files; evaluation: the API's, None where it was not measured."""

    job_id: str
    model: str
    method: str
    bits: int
    group_size: int
    sym: bool
    state: str
    error: str | None
    artifact_bytes: int | None
    seconds: float | None
    evaluation: dict[str, Any] | None

    @classmethod
    def of_job(cls, job: dict[str, Any], files: list[dict[str, Any]]) -> Compared:
        """Returns the row of a job and its artifact's files."""
        spec = job["spec"]
        over = job["started_at"] and job["finished_at"]
        return cls(
            job_id=job["id"],
            model=model_text(spec["model"]),
            method=spec["method"],
            bits=spec["bits"],
            group_size=spec["group_size"],
            sym=spec["sym"],
            state=job["state"],
            error=job["error"]["code"] if job["error"] else None,
            artifact_bytes=sum(file["size_bytes"] for file in files) or None,
            seconds=job_seconds(job) if over else None,
            evaluation=job["evaluation"],
        )

    @classmethod
    def of_row(cls, row: dict[str, Any]) -> Compared:
        """Returns the row of one line of a batch's table."""
        config = row["config"]
        return cls(
            sym=config["sym"],
            **{name: row[name] for name in cls.__slots__ if name != "sym"},
        )


def compare_jobs(
    job_ids: list[str], batch_id: str | None, *, url: str | None, api_key: str | None, as_json: bool
) -> None:
    """Prints the table; raises CliError where nothing, or both jobs and a batch, are named."""
    _require_one(job_ids, batch_id)
    with ServiceClient(client_settings(url, api_key)) as client:
        rows = _of_batch(client, batch_id) if batch_id else [_of_job(client, job_id) for job_id in job_ids]
    if as_json:
        print_json({"jobs": [asdict(row) for row in rows]})
    else:
        _print_rows(rows)


def print_batch(batch: Mapping[str, Any]) -> None:
    """Prints the table of a batch as the service answers it."""
    _print_rows([Compared.of_row(row) for row in batch["table"]])


def _print_rows(rows: list[Compared]) -> None:
    if rows:
        out().print(compare_table(rows))
        out().print()
        out().print(legend(rows))
        for missing in not_measured(rows):
            out().print(missing, style="dim", highlight=False, markup=False)
        if any(row.evaluation is None for row in rows):
            out().print("-: not measured; submit with --evaluate to have a job measured.", style="dim")
    else:
        out().print("All jobs of this batch were deleted.")


def _require_one(job_ids: list[str], batch_id: str | None) -> None:
    if bool(job_ids) == bool(batch_id):
        raise CliError(
            ExitCode.USAGE,
            "Jobs and a batch cannot be compared together." if job_ids else "Nothing to compare is named.",
            hint="Write `bitmill compare JOB_ID JOB_ID`, or `bitmill compare --batch BATCH_ID`.",
            field="--batch" if job_ids else "JOB_ID",
        )
    if twice := sorted({job_id for job_id in job_ids if job_ids.count(job_id) > 1}):
        raise CliError(ExitCode.USAGE, f"{twice[0]} is named twice.", hint="Name each job once.", field="JOB_ID")


def _of_job(client: ServiceClient, job_id: str) -> Compared:
    job = client.get(f"/v1/jobs/{job_id}")
    return Compared.of_job(job, client.get(f"/v1/jobs/{job_id}/artifacts")["data"])


def _of_batch(client: ServiceClient, batch_id: str) -> list[Compared]:
    return [Compared.of_row(row) for row in client.get(f"/v1/batches/{batch_id}")["table"]]
