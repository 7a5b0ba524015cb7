"""What a job leaves behind while it runs: its events and its solved linears."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from api.deps import JobId, JobReader, ServicesDep
from api.problems import responses
from api.schemas.jobs import EventList, LinearList
from api.views import event_view, linear_view

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
    page_size: Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX)] = PAGE_SIZE,
) -> EventList:
    """Returns events behind a sequence number, oldest first. seq is gap-free, so nothing can be missed."""
    with services.database.reading() as repository:
        events = repository.list_events(job_id, after, page_size, owner=principal.sees)
    return EventList(data=[event_view(event) for event in events], next_after=events[-1].seq if events else after)


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
    page_size: Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX)] = PAGE_SIZE,
    page_token: Annotated[str | None, Query(max_length=1024, description="next_page_token of the page before.")] = None,
) -> LinearList:
    """Returns loss and time of each linear, by block and name."""
    bound_to = {"list": "linears", "job": job_id, "sees": principal.sees}
    after = None if page_token is None else _place(services.signer.open(page_token, bound_to))
    with services.database.reading() as repository:
        rows = repository.list_linears(job_id, after, page_size + 1, owner=principal.sees)
    page = rows[:page_size]
    token = None
    if len(rows) > page_size:
        token = services.signer.seal({"block": page[-1].block, "linear": page[-1].linear}, bound_to)
    return LinearList(data=[linear_view(row) for row in page], next_page_token=token)


def _place(place: dict[str, Any]) -> tuple[int, str]:
    return place["block"], place["linear"]
