"""Batches: every config on every model in one call, and the table that compares them."""

from __future__ import annotations

import hashlib
from collections import Counter

from fastapi import APIRouter, BackgroundTasks, Request, Response

from api.answers import NOT_MODIFIED, versioned
from api.batching import prepare_batch
from api.conditional import weak_etag
from api.deps import BatchId, JobReader, JobWriter, ServicesDep
from api.problems import responses
from api.references import references
from api.routes.jobs import IdempotencyKey
from api.schemas.batches import BatchRow, BatchView
from api.schemas.evaluation import EvaluationView
from api.schemas.requests import BatchRequest
from api.views import job_path
from store.jobs import Batch, BatchMember, Job, model_name

router = APIRouter(prefix="/v1/batches", tags=["batches"])

LOCATION = {"Location": {"schema": {"type": "string"}, "description": "Path of the batch"}}


@router.post(
    "",
    status_code=202,
    operation_id="submitBatch",
    summary="Submit a batch",
    responses={
        202: {"description": "Accepted; Location is the batch", "headers": LOCATION},
        **responses(400, 401, 403, 413, 415, 422, 503),
    },
)
def submit_batch(
    body: BatchRequest,
    services: ServicesDep,
    principal: JobWriter,
    background: BackgroundTasks,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> BatchView:
    """Stores one job per model and config, all or none: where one of them cannot run, each such cell is named."""
    new = prepare_batch(body, services, principal, idempotency_key)
    with services.database.transaction() as repository:
        batch, created = repository.add_batch(new)
        if created:
            repository.require_quota(principal.owner_id)
    if created:
        for member in batch.members:
            services.tracing.submitted(member.job.id)
        for queue_class in sorted({cell.job.queue_class for cell in new.cells}):
            background.add_task(services.waker.wake, queue_class, hint=batch.id)
    response.headers["Location"] = f"/v1/batches/{batch.id}"
    response.headers["Idempotency-Replayed"] = str(not created).lower()
    return _view(batch)


@router.get(
    "/{batch_id}",
    operation_id="getBatch",
    summary="Compare a batch's jobs",
    response_model=BatchView,
    responses={**NOT_MODIFIED, **responses(401, 403, 404, 503)},
)
def get_batch(
    batch_id: BatchId, request: Request, response: Response, services: ServicesDep, principal: JobReader
) -> BatchView | Response:
    """Returns the jobs side by side: size, loss, measured quality and time, as far as they are known."""
    with services.database.reading() as repository:
        batch = repository.get_batch(batch_id, principal.sees)
    return versioned(request, response, weak_etag(_version(batch)), lambda: _view(batch))


def _version(batch: Batch) -> str:
    lines = [f"{member.job.id} {member.job.version}" for member in batch.members]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def _view(batch: Batch) -> BatchView:
    table = [_row(member) for member in batch.members]
    return BatchView(
        id=batch.id,
        name=batch.name,
        created_at=batch.created_at,
        states=dict(Counter(member.job.state for member in batch.members)),
        references=references(table),
        table=table,
    )


def _row(member: BatchMember) -> BatchRow:
    job = member.job
    config = {name: value for name, value in job.spec["quantization"].items() if name != "schema_version"}
    return BatchRow(
        job_id=job.id,
        job=job_path(job.id),
        model=model_name(job.spec),
        model_index=member.model_index,
        config_index=member.config_index,
        method=config["method"],
        bits=config["bits"],
        group_size=config["group_size"],
        config=config,
        state=job.state,
        fraction=job.progress.fraction,
        artifact_bytes=member.artifact_bytes,
        mean_relative_loss=member.mean_relative_loss,
        evaluation=None if job.evaluation is None else EvaluationView.model_validate(job.evaluation),
        seconds=_seconds(job),
        error=None if job.error is None else job.error.code,
    )


def _seconds(job: Job) -> float | None:
    if job.started_at is None or job.finished_at is None:
        return None
    return (job.finished_at - job.started_at).total_seconds()
