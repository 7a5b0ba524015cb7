"""Jobs: submit, read, list, follow, cancel, retry, delete."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import StringConstraints

from api.answers import NOT_MODIFIED, unchanged_since, versioned
from api.conditional import weak_etag
from api.deps import JobCanceller, JobId, JobReader, JobWriter, Principal, ServicesDep
from api.paging import Page, PageRequest, cursor_of, place_by_age
from api.problems import responses
from api.schemas.jobs import (
    AttemptList,
    JobList,
    JobProgressView,
    JobView,
    ObstacleView,
    PreflightView,
    QueuePositionView,
)
from api.schemas.requests import LABELS_MAX, JobRequest, Text
from api.schemas.retention import KeepChanges
from api.schemas.times import Moment
from api.services import Services
from api.submission import Submission, prepare_submission
from api.views import attempt_view, estimate_view, job_path, job_view, progress_view, spec_view
from core.configs import Method
from store.jobs import Job, JobFilter, JobState

router = APIRouter(prefix="/v1", tags=["jobs"])

PAGE_SIZE = 50
PAGE_SIZE_MAX = 200
# How long a polite client waits before it asks again; a finished job changes only by a user's hand.
RETRY_AFTER_S = {JobState.QUEUED: 2, JobState.RUNNING: 1, JobState.CANCELLING: 1}
ACCEPTED = {
    "description": "Accepted; Location is the job",
    "headers": {
        "Location": {"schema": {"type": "string"}, "description": "Path of the job"},
        "Idempotency-Replayed": {"schema": {"type": "boolean"}, "description": "Whether an earlier submit made it"},
    },
}
LabelPair = Annotated[str, StringConstraints(pattern=r"^[^:\x00-\x1f]+:[^\x00-\x1f]*$", max_length=512)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Makes a repeated submit harmless: the same key and request give the same job.",
    ),
]


@router.post(
    "/jobs",
    status_code=202,
    operation_id="submitJob",
    summary="Submit a job",
    response_model=JobView,
    responses={
        202: ACCEPTED,
        200: {"description": "The preflight that validate_only asks for; no job was stored", "model": PreflightView},
        **responses(400, 401, 403, 409, 413, 415, 422, 503),
    },
)
async def submit_job(
    body: JobRequest,
    services: ServicesDep,
    principal: JobWriter,
    response: Response,
    *,
    idempotency_key: IdempotencyKey = None,
    validate_only: Annotated[bool, Query(description="Check the request and store no job.")] = False,
) -> JobView | Response:
    """Stores the job and answers at once; no answer waits for the broker.

    A local or uploaded model, the options, the targets and the calibration set are checked here, so that what cannot
    run is refused before a job exists. A hub model is checked by the worker.
    """
    work = partial(
        _submit, body, services, principal, response, idempotency_key=idempotency_key, store=not validate_only
    )
    return await to_thread.run_sync(work, limiter=services.submits)


def _submit(
    body: JobRequest,
    services: Services,
    principal: Principal,
    response: Response,
    *,
    idempotency_key: str | None,
    store: bool,
) -> JobView | Response:
    submission = prepare_submission(body, services, principal, idempotency_key)
    if not store:
        return JSONResponse(_preflight(submission).model_dump(mode="json"))
    with services.database.transaction() as repository:
        job, created = repository.add_job(submission.job)
        if created and principal.quotas.amounts:
            repository.require_quota(principal.owner_id)
    if created:
        services.tracing.submitted(job.id)
        services.wake_ups.ask(job.queue_class, job.id)
    response.headers["Location"] = job_path(job.id)
    response.headers["Idempotency-Replayed"] = str(not created).lower()
    return job_view(job)


def _preflight(submission: Submission) -> PreflightView:
    return PreflightView(
        spec=spec_view(submission.job.spec),
        warnings=list(submission.warnings),
        estimate=estimate_view(submission.estimate),
    )


@router.get(
    "/jobs",
    operation_id="listJobs",
    summary="List jobs",
    response_model=JobList,
    responses={**NOT_MODIFIED, **responses(400, 401, 403, 422, 503)},
)
def list_jobs(  # noqa: PLR0913 - the filters of the list, each by name
    request: Request,
    response: Response,
    services: ServicesDep,
    principal: JobReader,
    *,
    state: Annotated[tuple[JobState, ...], Query(max_length=len(JobState), description="One of these.")] = (),
    method: Annotated[Method | None, Query(description="How it quantizes.")] = None,
    model: Annotated[Text | None, Query(description="Hub name, an upload's name, or the path inside its root.")] = None,
    label: Annotated[
        tuple[LabelPair, ...],
        Query(
            max_length=LABELS_MAX, description="`key:value`; a job must carry all of them.", examples=["team:search"]
        ),
    ] = (),
    created_after: Annotated[Moment | None, Query(description="RFC 3339, excluded.")] = None,
    created_before: Annotated[Moment | None, Query(description="RFC 3339, excluded.")] = None,
    page_size: Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX, description="Rows at most.")] = PAGE_SIZE,
    page_token: Annotated[str | None, Query(max_length=512, description="next_page_token of the page before.")] = None,
) -> JobList | Response:
    """Returns jobs newest first. Pages go by key: what arrives meanwhile neither repeats nor hides a job."""
    bound_to = {
        "list": "jobs",
        "sees": principal.sees,
        "state": state,
        "method": method,
        "model": model,
        "label": label,
        "after": str(created_after),
        "before": str(created_before),
    }
    asked = PageRequest(signer=services.signer, bound_to=bound_to, size=page_size, token=page_token)
    after = asked.after(cursor_of)
    job_filter = JobFilter(
        states=state,
        method=method,
        model=model,
        labels=tuple(_label_pair(pair) for pair in label),
        created_after=created_after,
        created_before=created_before,
    )
    with services.database.reading() as repository:
        page = asked.cut(repository.list_jobs(principal.sees, job_filter, asked.limit, after), place_by_age)
    return versioned(
        request,
        response,
        weak_etag(_list_version(page)),
        lambda: JobList(data=[job_view(job) for job in page.rows], next_page_token=page.next_token),
    )


def _label_pair(label: str) -> tuple[str, str]:
    key, _, value = label.partition(":")
    return key, value


def _list_version(page: Page[Job]) -> str:
    lines = [f"{job.id} {job.version}" for job in page.rows] + [str(page.next_token is not None)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


@router.get(
    "/jobs/{job_id}",
    operation_id="getJob",
    summary="Read a job",
    response_model=JobView,
    responses={**NOT_MODIFIED, **responses(401, 403, 404, 503)},
)
def get_job(
    job_id: JobId, request: Request, response: Response, services: ServicesDep, principal: JobReader
) -> JobView | Response:
    """Returns the whole job; with If-None-Match, 304 while its version has not grown."""
    unchanged = _unchanged(request, services, job_id, principal.sees)
    if unchanged is not None:
        return unchanged
    job = _read(services, job_id, principal.sees)
    return versioned(request, response, weak_etag(job.version), lambda: job_view(job), _poll_hint(job.state))


@router.get(
    "/jobs/{job_id}/progress",
    operation_id="getJobProgress",
    summary="Follow a job",
    response_model=JobProgressView,
    responses={**NOT_MODIFIED, **responses(401, 403, 404, 503)},
)
def get_progress(
    job_id: JobId, request: Request, response: Response, services: ServicesDep, principal: JobReader
) -> JobProgressView | Response:
    """Returns what changes while the job runs. Poll it with If-None-Match, not more often than Retry-After says."""
    unchanged = _unchanged(request, services, job_id, principal.sees)
    if unchanged is not None:
        return unchanged
    job = _read(services, job_id, principal.sees)
    return versioned(request, response, weak_etag(job.version), lambda: progress_view(job), _poll_hint(job.state))


@router.get(
    "/jobs/{job_id}/queue-position",
    operation_id="getQueuePosition",
    summary="Where a job stands",
    responses=responses(401, 403, 404, 503),
)
def get_queue_position(job_id: JobId, services: ServicesDep, principal: JobReader) -> QueuePositionView:
    """Returns how many jobs would be claimed before this one, were they claimed now: by priority, by how busy their
    owners' other jobs keep the workers, by age. A later job may come before it; the number can grow.

    `obstacle` says why no live worker could take it: none serves its queue class, all drain, or none has what it needs.
    """
    with services.database.reading() as repository:
        place = repository.queue_position(job_id, principal.sees)
    return QueuePositionView(
        id=job_id,
        state=place.job.state,
        position=place.position,
        waiting=place.waiting,
        workers=place.workers,
        free_slots=place.free_slots,
        obstacle=None if place.obstacle is None else ObstacleView(**asdict(place.obstacle)),
        available_at=place.job.available_at if place.position is not None else None,
    )


def _read(services: ServicesDep, job_id: str, sees: str | None) -> Job:
    with services.database.reading() as repository:
        return repository.get_job(job_id, sees)


def _unchanged(request: Request, services: ServicesDep, job_id: str, sees: str | None) -> Response | None:
    """Returns the 304 of a caller that has this version, without reading the rest of the row: most polls end here."""
    if "if-none-match" not in request.headers:
        return None
    with services.database.reading() as repository:
        version, state = repository.job_version(job_id, sees)
    return unchanged_since(request, weak_etag(version), _poll_hint(state))


def _poll_hint(state: JobState) -> dict[str, str]:
    return {"Retry-After": str(RETRY_AFTER_S[state])} if state in RETRY_AFTER_S else {}


@router.get(
    "/jobs/{job_id}/attempts",
    operation_id="listAttempts",
    summary="List a job's attempts",
    responses=responses(401, 403, 404, 503),
)
def list_attempts(job_id: JobId, services: ServicesDep, principal: JobReader) -> AttemptList:
    """Returns every claim of the job by a worker, with how it ended."""
    with services.database.reading() as repository:
        attempts = repository.list_attempts(job_id, owner=principal.sees)
    return AttemptList(data=[attempt_view(attempt) for attempt in attempts])


@router.post(
    "/jobs/{job_id}:cancel",
    operation_id="cancelJob",
    summary="Cancel a job",
    responses=responses(401, 403, 404, 409, 503),
)
def cancel_job(job_id: JobId, services: ServicesDep, principal: JobCanceller) -> JobView:
    """Cancels a queued job at once; a running one is `cancelling` until its process has ended. It may be repeated."""
    with services.database.transaction() as repository:
        job = repository.request_cancel(job_id, principal.sees)
    return job_view(job)


@router.post(
    "/jobs/{job_id}:retry",
    operation_id="retryJob",
    summary="Retry a job",
    responses=responses(401, 403, 404, 409, 503),
)
def retry_job(job_id: JobId, services: ServicesDep, principal: JobWriter) -> JobView:
    """Queues a failed or cancelled job again with a fresh retry budget. Repeating is harmless."""
    with services.database.transaction() as repository:
        job = repository.retry(job_id, principal.sees)
        repository.require_quota(job.owner_key_id)
    services.wake_ups.ask(job.queue_class, job.id)
    return job_view(job)


@router.patch(
    "/jobs/{job_id}",
    operation_id="keepJob",
    summary="Say how long a job's files are kept",
    responses=responses(400, 401, 403, 404, 413, 415, 422, 503),
)
def keep_job(job_id: JobId, body: KeepChanges, services: ServicesDep, principal: JobWriter) -> JobView:
    """Pins a job's files or sets when they go. A day before, the history tells of it (`artifacts_expiring`)."""
    changes = {name: getattr(body, name) for name in body.model_fields_set}
    with services.database.transaction() as repository:
        return job_view(repository.keep_job(job_id, changes, principal.sees))


@router.delete(
    "/jobs/{job_id}",
    status_code=204,
    operation_id="deleteJob",
    summary="Delete a job",
    responses=responses(401, 403, 404, 409, 503),
)
def delete_job(job_id: JobId, services: ServicesDep, principal: JobWriter) -> None:
    """Removes a finished job, its history and its files for good. Files that another job shares stay.

    A job that waits or runs is cancelled first. The disk space comes back with a worker's next sweep.
    """
    with services.database.transaction() as repository:
        repository.delete_job(job_id, principal.sees)
