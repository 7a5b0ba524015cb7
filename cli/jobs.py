"""What `bitmill jobs` does: requests to the service and what comes of them on the terminal."""

from __future__ import annotations

import re
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.calibration_text import CalibrationSource
from cli.client import ServiceClient
from cli.download import RemoteFile, check_sums, fetch_all
from cli.errors import CliError, ExitCode
from cli.job_text import job_details, job_table, outcome_text
from cli.output import bytes_text, err, out, print_json
from cli.progress_view import progress_view
from cli.settings import client_settings
from cli.watch import TERMINAL, follow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cli.options import BudgetOptions, CalibrationOptions, QuantizationOptions

PAGE_SIZE = 100
UPLOAD_ID = re.compile(r"mdl_[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What `jobs submit` was asked for. model: a folder, a hub id or an upload's id; source: the calibration text."""

    model: str
    revision: str | None
    source: CalibrationSource
    quantization: QuantizationOptions
    calibration: CalibrationOptions
    budget: BudgetOptions
    targets: tuple[str, ...]
    formats: tuple[str, ...]
    labels: tuple[str, ...]
    priority: int | None
    deadline: int | None
    evaluate: bool
    nf4: bool
    idempotency_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuery:
    """Filters of `jobs list`; None is no filter."""

    state: str | None
    method: str | None
    model: str | None
    label: str | None
    limit: int


def submit_job(submission: Submission, *, url: str | None, api_key: str | None, wait: bool, as_json: bool) -> None:
    """Submits, and with `wait` follows the job to its end and exits with its code."""
    with ServiceClient(client_settings(url, api_key)) as client:
        job = post_job(client, submission)
        if wait:
            if not as_json:
                err().print(f"Submitted {job['id']}.")
            _finish(_follow(client, job["id"]), as_json=as_json)
        elif as_json:
            print_json(job)
        else:
            out().print(job["id"])
            err().print(f"Follow it with: bitmill jobs watch {job['id']}", style="dim")


def post_job(client: ServiceClient, submission: Submission) -> dict[str, Any]:
    """Uploads the calibration text where there is one, submits the job and returns it."""
    calibration = submission.calibration.given()
    submission.source.check()
    if (name := submission.source.set_for(client)) is not None:
        calibration["set"] = name
    fields = {
        "model": model_field(submission.model, submission.revision),
        **submission.quantization.given(),
        "calibration": calibration,
        "budget": submission.budget.given(),
        "targets": list(submission.targets),
        **({"formats": list(submission.formats)} if submission.formats else {}),
        "labels": labels_of(submission.labels),
        "priority": submission.priority,
        "deadline_s": submission.deadline,
        "evaluate": submission.evaluate,
        "evaluate_nf4": None if submission.nf4 else False,
    }
    body = {name: value for name, value in fields.items() if value not in (None, {}, [])}
    # A key per command: a request that is repeated by the network makes no second job.
    return client.post("/v1/jobs", body, Idempotency_Key=submission.idempotency_key or str(uuid.uuid4()))


def model_field(model: str, revision: str | None) -> dict[str, str]:
    """Returns the request's `model`: a path where it is or looks like a folder, an upload's id, else a hub id."""
    folder = Path(model).expanduser()
    if UPLOAD_ID.fullmatch(model) and not folder.is_dir():
        return {"source": "upload", "id": model}
    if folder.is_dir() or model.startswith(("/", ".", "~")):
        return {"source": "path", "path": str(folder.absolute())}
    return {"source": "hub", "repo": model, **({"revision": revision} if revision else {})}


def list_jobs(query: JobQuery, *, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Prints the newest jobs that match."""
    jobs: list[dict[str, Any]] = []
    token: str | None = None
    with ServiceClient(client_settings(url, api_key)) as client:
        while len(jobs) < query.limit:
            page = client.get(
                "/v1/jobs",
                state=query.state,
                method=query.method,
                model=query.model,
                label=query.label.replace("=", ":", 1) if query.label else None,
                page_size=min(query.limit - len(jobs), PAGE_SIZE),
                page_token=token,
            )
            jobs.extend(page["data"])
            token = page["next_page_token"]
            if token is None:
                break
    if as_json:
        print_json({"jobs": jobs})
    elif jobs:
        out().print(job_table(jobs))
    else:
        out().print("No job matches.")


def get_job(job_id: str, *, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Prints one job."""
    with ServiceClient(client_settings(url, api_key)) as client:
        job = client.get(f"/v1/jobs/{job_id}")
    if as_json:
        print_json(job)
    else:
        out().print(job_details(job))


def watch_job(job_id: str, *, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Follows a job to its end and exits with its code."""
    with ServiceClient(client_settings(url, api_key)) as client:
        _finish(_follow(client, job_id), as_json=as_json)


def cancel_job(job_id: str, *, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Asks for the job's end."""
    _act(job_id, "cancel", url=url, api_key=api_key, as_json=as_json)


def retry_job(job_id: str, *, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Queues a failed or cancelled job again."""
    _act(job_id, "retry", url=url, api_key=api_key, as_json=as_json)


def download_artifact(job_id: str, *, dst: Path, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Fetches every file of the job into `dst` and verifies them; raises CliError where one is wrong."""
    with ServiceClient(client_settings(url, api_key)) as client:
        files, verified = download(client, job_id, dst)
    size = sum(file.size_bytes for file in files)
    if as_json:
        print_json({"job": job_id, "folder": str(dst), "files": len(files), "size_bytes": size, "verified": verified})
    else:
        out().print(f"{dst}  {len(files)} files, {bytes_text(size)}; {verified} checksums match", soft_wrap=True)


def download(client: ServiceClient, job_id: str, dst: Path) -> tuple[list[RemoteFile], int]:
    """Fetches and verifies with a bar on stderr; returns the files and the number of checksums that match."""
    listed = client.get(f"/v1/jobs/{job_id}/artifacts")["data"]
    if not listed:
        state = client.get(f"/v1/jobs/{job_id}")["state"]
        raise CliError(
            ExitCode.REFUSED,
            f"Job {job_id} has no artifact: it is {state}.",
            hint=f"Follow it with `bitmill jobs watch {job_id}`; an artifact is there once it succeeded.",
            code="no_artifact",
        )
    files = [RemoteFile.from_json(values) for values in listed]
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("  downloading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = err()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("download", total=sum(file.size_bytes for file in files))
        fetch_all(client, files, dst, lambda count: bar.advance(task, count))
    return files, check_sums(client, job_id, dst, files)


def _act(job_id: str, action: str, *, url: str | None, api_key: str | None, as_json: bool) -> None:
    with ServiceClient(client_settings(url, api_key)) as client:
        job = client.post(f"/v1/jobs/{job_id}:{action}")
    if as_json:
        print_json(job)
    else:
        out().print(f"{job_id} is {job['state']}.")


def _follow(client: ServiceClient, job_id: str) -> dict[str, Any]:
    with progress_view(err()) as view:
        return follow(client, job_id, view)


def _finish(job: dict[str, Any], *, as_json: bool) -> None:
    """Prints how the job ended and exits with the code for it."""
    if as_json:
        print_json(job)
    else:
        out().print(outcome_text(job))
    code = TERMINAL[job["state"]]
    if code is not ExitCode.OK:
        sys.exit(int(code))


def labels_of(texts: Iterable[str]) -> dict[str, str]:
    """Returns the labels that were typed as K=V; raises CliError on anything else."""
    return dict(_label(text) for text in texts)


def _label(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise CliError(
            ExitCode.USAGE, f"--label {text!r} is not K=V.", hint="Write it like --label team=search.", field="--label"
        )
    return key, value
