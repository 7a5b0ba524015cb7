"""What a job leaves behind while it runs: its events, its log, its solved linears."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.deps import JobId, JobReader, ServicesDep
from api.paging import PageRequest
from api.problems import responses
from api.schemas.budget import BudgetView
from api.schemas.jobs import EventList, LinearList, LogList
from api.schemas.options import INT32_MAX
from api.views import BUDGET_PLAN, budget_view, event_view, linear_view, log_line_view
from store.errors import NotFoundError
from store.repository.logs import LINES_KEPT

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["history"])

PAGE_SIZE = 200
PAGE_SIZE_MAX = 1000
SEQ_MAX = 2**62


@router.get(
    "/events",
    operation_id="listEvents",
    summary="List a job's events",
    responses=responses(401, 403, 404, 422, 503),
)
def list_events(
    job_id: JobId,
    services: ServicesDep,
    principal: JobReader,
    *,
    after: Annotated[int, Query(ge=0, le=SEQ_MAX, description="The last seq that is known already.")] = 0,
    page_size: Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX, description="Rows at most.")] = PAGE_SIZE,
) -> EventList:
    """Returns events behind a sequence number, oldest first. seq is gap-free, so nothing can be missed."""
    with services.database.reading() as repository:
        events = repository.list_events(job_id, after, page_size, owner=principal.sees)
    return EventList(data=[event_view(event) for event in events], next_after=events[-1].seq if events else after)


@router.get(
    "/logs",
    operation_id="listLogLines",
    summary="Read a job's log",
    responses=responses(401, 403, 404, 422, 503),
)
def list_log_lines(
    job_id: JobId,
    services: ServicesDep,
    principal: JobReader,
    *,
    tail: Annotated[int, Query(ge=1, le=LINES_KEPT, description="How many of the newest lines.")] = PAGE_SIZE,
    attempt: Annotated[int | None, Query(ge=1, le=INT32_MAX, description="Of one attempt; of all by default.")] = None,
) -> LogList:
    """Returns the newest lines, oldest of them first: what the worker did and what the engine's process printed.

    Each attempt keeps its newest 2,000 lines. They come with the next sign of life of the worker, every 10 seconds.
    """
    with services.database.reading() as repository:
        lines = repository.list_log_lines(job_id, tail, attempt=attempt, owner=principal.sees)
    return LogList(data=[log_line_view(line) for line in lines])


@router.get(
    "/linears",
    operation_id="listLinears",
    summary="List a job's solved linears",
    responses=responses(400, 401, 403, 404, 422, 503),
)
def list_linears(
    job_id: JobId,
    services: ServicesDep,
    principal: JobReader,
    *,
    page_size: Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX, description="Rows at most.")] = PAGE_SIZE,
    page_token: Annotated[str | None, Query(max_length=1024, description="next_page_token of the page before.")] = None,
) -> LinearList:
    """Returns loss and time of each linear, by block and name."""
    bound_to = {"list": "linears", "job": job_id, "sees": principal.sees}
    asked = PageRequest(signer=services.signer, bound_to=bound_to, size=page_size, token=page_token)
    after = asked.after(lambda place: (int(place["block"]), str(place["linear"])))
    with services.database.reading() as repository:
        found = repository.list_linears(job_id, after, asked.limit, owner=principal.sees)
    page = asked.cut(found, lambda row: {"block": row.block, "linear": row.linear})
    return LinearList(data=[linear_view(row) for row in page.rows], next_page_token=page.next_token)


@router.get(
    "/budget",
    operation_id="getBudget",
    summary="Read what a job's budget chose",
    responses=responses(401, 403, 404, 422, 503),
)
def get_budget(job_id: JobId, services: ServicesDep, principal: JobReader) -> BudgetView:
    """Returns the plan with its curve; there is none before the job was planned, nor for a job without a budget."""
    with services.database.reading() as repository:
        job = repository.get_job(job_id, principal.sees)
    plan = job.resolved.get(BUDGET_PLAN)
    if plan is None:
        raise NotFoundError("budget plan of job", job_id)
    return budget_view(plan)
