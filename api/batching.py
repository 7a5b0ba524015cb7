"""Turns a batch request into the jobs to store, one per model and config, or into one refusal that names every cell."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from api.deps import Principal
from api.errors import ApiError, InvalidRequestError
from api.problems import FieldProblem, Refusal
from api.refusals import refusal_of
from api.schemas.requests import BATCH_JOBS_MAX, LABELS_MAX, BatchRequest, JobRequest
from api.services import Services
from api.submission import Submission, prepare_submission
from core.errors import CoreError
from store.jobs import BatchCell, NewBatch

ERRORS_MAX = 50


class BatchRefusedError(ApiError):
    """At least one job of the batch cannot run."""

    def __init__(self, refusals: tuple[Refusal, ...], total: int) -> None:
        self.refusals = refusals
        first = refusals[0]
        super().__init__(
            Refusal(
                status=422,
                code="batch_refused",
                detail=f"{len(refusals)} of {total} jobs cannot run; none was stored. The first: {first.detail}",
                hint=first.hint,
                errors=tuple(problem for refusal in refusals for problem in refusal.errors)[:ERRORS_MAX],
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedBatch:
    """What is stored, and what was found about the job of each of its cells, in their order."""

    new: NewBatch
    submissions: tuple[Submission, ...]


def prepare_batch(
    request: BatchRequest, services: Services, principal: Principal, idempotency_key: str | None
) -> CheckedBatch:
    """Returns the batch to store; raises InvalidRequestError where it is too large, and BatchRefusedError."""
    total = len(request.models) * len(request.configs)
    if total > BATCH_JOBS_MAX:
        detail = f"{len(request.models)} models by {len(request.configs)} configs are {total} jobs."
        problem = FieldProblem(pointer="#/configs", detail=f"models times configs may be {BATCH_JOBS_MAX} at most")
        raise InvalidRequestError("batch_too_large", detail, problem, hint="Submit several batches.")
    cells: list[BatchCell] = []
    submissions: list[Submission] = []
    refusals: list[Refusal] = []
    for model_index, config_index in product(range(len(request.models)), range(len(request.configs))):
        try:
            submission = _submission(request, model_index, config_index, services, principal)
        except (CoreError, ApiError) as error:
            refusals.append(_placed(refusal_of(error), model_index, config_index))
            continue
        cells.append(BatchCell(model_index=model_index, config_index=config_index, job=submission.job))
        submissions.append(submission)
    if refusals:
        raise BatchRefusedError(tuple(refusals), total)
    new = NewBatch(
        owner_key_id=principal.owner_id,
        name=request.name,
        cells=tuple(cells),
        idempotency_key=idempotency_key,
        request_sha256=_request_hash(request, cells),
    )
    return CheckedBatch(new=new, submissions=tuple(submissions))


def _submission(
    request: BatchRequest, model_index: int, config_index: int, services: Services, principal: Principal
) -> Submission:
    options = request.configs[config_index].model_dump(exclude_unset=True)
    labels = {**request.labels, **options.get("labels", {})}
    if len(labels) > LABELS_MAX:
        detail = f"A job may carry {LABELS_MAX} labels; these are {len(labels)} with those of the batch."
        raise InvalidRequestError("invalid_request", detail, FieldProblem(pointer="#/labels", detail="too many labels"))
    model = request.models[model_index].model_dump(exclude_unset=True)
    job_request = JobRequest.model_validate({**options, "model": model, "labels": labels})
    return prepare_submission(job_request, services, principal, None)


def _placed(refusal: Refusal, model_index: int, config_index: int) -> Refusal:
    """Points into the batch instead of into the one job."""
    return replace(refusal, errors=tuple(_point(refusal, model_index, config_index)))


def _point(refusal: Refusal, model_index: int, config_index: int) -> Iterator[FieldProblem]:
    where = f"models/{model_index}, configs/{config_index}"
    for problem in refusal.errors or (FieldProblem(pointer="#", detail=refusal.detail),):
        path = (problem.pointer or "#").removeprefix("#")
        if path == "/model" or path.startswith("/model/"):
            pointer = f"#/models/{model_index}{path.removeprefix('/model')}"
        else:
            pointer = f"#/configs/{config_index}{path}"
        yield FieldProblem(pointer=pointer, detail=f"{problem.detail} ({where})")


def _request_hash(request: BatchRequest, cells: Sequence[BatchCell]) -> str:
    lines = [request.name, *(f"{cell.model_index} {cell.config_index} {cell.job.request_sha256}" for cell in cells)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
