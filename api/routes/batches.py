"""Batches: every config on every model in one call, and the table that compares them."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from api.answers import NOT_MODIFIED, versioned
from api.batching import CheckedBatch, prepare_batch
from api.conditional import weak_etag
from api.deps import BatchId, JobReader, JobWriter, ServicesDep
from api.paging import PageRequest
from api.problems import responses
from api.references import references
from api.routes.jobs import IdempotencyKey
from api.schemas.batches import (
    BatchCellView,
    BatchList,
    BatchPreflightView,
    BatchRow,
    BatchSummaryView,
    BatchView,
)
from api.schemas.evaluation import EvaluationView
from api.schemas.requests import BatchRequest
from api.views import batch_path, estimate_view, job_path
from store.jobs import Batch, BatchMember, BatchSummary, Job, model_name

router = APIRouter(prefix="/v1/batches", tags=["batches"])

PAGE_SIZE = 50
PAGE_SIZE_MAX = 200

LOCATION = {"Location": {"schema": {"type": "string"}, "description": "Path of the batch"}}


@router.post(
    "",
    status_code=202,
    operation_id="submitBatch",
    summary="Submit a batch",
    response_model=BatchView,
    responses={
        202: {"description": "Accepted; Location is the batch", "headers": LOCATION},
        200: {
            "description": "The preflight that validate_only asks for; nothing was stored",
            "model": BatchPreflightView,
        },
        **responses(400, 401, 403, 413, 415, 422, 503),
    },
)
def submit_batch(
    body: BatchRequest,
    services: ServicesDep,
    principal: JobWriter,
    response: Response,
    *,
    idempotency_key: IdempotencyKey = None,
    validate_only: Annotated[bool, Query(description="Check the request and store nothing.")] = False,
) -> BatchView | Response:
    """Stores one job per model and config, all or none: where one of them cannot run, each such cell is named."""
    checked = prepare_batch(body, services, principal, idempotency_key)
    if validate_only:
        return JSONResponse(_preflight(checked).model_dump(mode="json"))
    new = checked.new
    with services.database.transaction() as repository:
        batch, created = repository.add_batch(new)
        if created and principal.quotas.amounts:
            repository.require_quota(principal.owner_id)
    if created:
        for member in batch.members:
            services.tracing.submitted(member.job.id)
        for queue_class in sorted({cell.job.queue_class for cell in new.cells}):
            services.wake_ups.ask(queue_class, batch.id)
    response.headers["Location"] = batch_path(batch.id)
    response.headers["Idempotency-Replayed"] = str(not created).lower()
    return _view(batch)


def _preflight(checked: CheckedBatch) -> BatchPreflightView:
    return BatchPreflightView(
        cells=[
            BatchCellView(
                model_index=cell.model_index,
                config_index=cell.config_index,
                warnings=list(submission.warnings),
                estimate=estimate_view(submission.estimate),
            )
            for cell, submission in zip(checked.new.cells, checked.submissions, strict=True)
        ]
    )


@router.get(
    "",
    operation_id="listBatches",
    summary="List batches",
    responses=responses(400, 401, 403, 422, 503),
)
def list_batches(
    services: ServicesDep,
    principal: JobReader,
    *,
    job: Annotated[
        str | None, Query(pattern=r"^job_[0-9a-f]{32}$", description="Id of a job: only the batch that it came with.")
    ] = None,
    page_size: Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX, description="Rows at most.")] = PAGE_SIZE,
    page_token: Annotated[str | None, Query(max_length=512, description="next_page_token of the page before.")] = None,
) -> BatchList:
    """Returns batches newest first, with how many of their jobs are in each state."""
    bound_to = {"list": "batches", "sees": principal.sees, "job": job}
    asked = PageRequest(signer=services.signer, bound_to=bound_to, size=page_size, token=page_token)
    before = asked.after(lambda place: str(place["id"]))
    with services.database.reading() as repository:
        found = repository.list_batches(principal.sees, asked.limit, before, job_id=job)
    page = asked.cut(found, lambda batch: {"id": batch.id})
    return BatchList(data=[_summary(batch) for batch in page.rows], next_page_token=page.next_token)


def _summary(batch: BatchSummary) -> BatchSummaryView:
    return BatchSummaryView(
        id=batch.id,
        name=batch.name,
        created_at=batch.created_at,
        states=dict(batch.states),
        batch=batch_path(batch.id),
    )


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
