"""Live events: of one job, and of many jobs on one connection."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response

from api.deps import IDENTIFIER_MAX_CHARS, JobId, JobReader, ServicesDep
from api.problems import responses
from api.schemas.job_examples import EVENT_EXAMPLE, JOB_EXAMPLE
from api.services import Services
from api.streams.cursor import MAX_CHARS, read_cursor, read_seq
from api.streams.response import EventStream, StreamTimes, Wanted

router = APIRouter(prefix="/v1", tags=["history"])

JOBS_MAX = 100
FORM = """`text/event-stream` of four kinds of event. `open`: where the stream starts. `event`: a line of a job's
history, durable, with an `id`. `progress`: how far a running job is, without an `id`. `reset`: the id that was sent
is not of this database's history; read the state anew. The stream ends now and then; connect again with
`Last-Event-ID`."""
ONE_EVENT: dict[str, Any] = {
    "description": "One event of the stream; data is JSON in one line.",
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "event": {"enum": ["open", "event", "progress", "reset"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "retry": {"type": "integer", "description": "Milliseconds to wait before connecting again."},
    },
}
DATA_EXAMPLE = {**EVENT_EXAMPLE, "job_id": JOB_EXAMPLE["id"]}
STREAM_EXAMPLE = f"id: 1.4711\nevent: event\ndata: {json.dumps(DATA_EXAMPLE, separators=(',', ':'))}\n\n"
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": FORM,
        "content": {"text/event-stream": {"schema": ONE_EVENT, "example": STREAM_EXAMPLE}},
    },
}
LastEventId = Annotated[str | None, Header(max_length=MAX_CHARS, description="The id of the last event that arrived.")]
EventIdQuery = Annotated[
    str | None, Query(max_length=MAX_CHARS, description="The same, where a client cannot set the header at first.")
]
JobIdText = Annotated[str, Query(max_length=IDENTIFIER_MAX_CHARS, pattern=r"^[A-Za-z0-9_]+$")]


@router.get(
    "/events/stream",
    operation_id="streamEvents",
    summary="Follow many jobs",
    response_class=Response,
    responses={**STREAM, **responses(400, 401, 403, 422, 503)},
)
async def stream_events(
    services: ServicesDep,
    principal: JobReader,
    *,
    job: Annotated[
        tuple[JobIdText, ...], Query(max_length=JOBS_MAX, description="Only these jobs; every visible one by default.")
    ] = (),
    after: EventIdQuery = None,
    last_event_id: LastEventId = None,
) -> Response:
    """Streams the events of jobs as they are written, from now or from an id. A line is sent once per connection.

    Async, unlike most routes: one poller serves every stream.
    """
    given = last_event_id or after
    place = None if given is None else read_cursor(given)
    wanted = Wanted(owner=principal.sees, job_ids=job, place=place)
    return EventStream(services.hub, _times(services), wanted)


@router.get(
    "/jobs/{job_id}/events/stream",
    operation_id="streamJobEvents",
    summary="Follow one job's events",
    response_class=Response,
    responses={**STREAM, **responses(400, 401, 403, 404, 422, 503)},
)
async def stream_job_events(
    job_id: JobId,
    services: ServicesDep,
    principal: JobReader,
    *,
    after: EventIdQuery = None,
    last_event_id: LastEventId = None,
) -> Response:
    """Streams the whole history of a job and then what comes. The ids are the events' `seq`; with one, it goes on
    behind it.
    """
    given = last_event_id or after
    wanted = Wanted(owner=principal.sees, job_ids=(job_id,), seq=0 if given is None else read_seq(given))
    await services.hub.read(lambda repository: repository.get_job(job_id, principal.sees))
    return EventStream(services.hub, _times(services), wanted)


def _times(services: Services) -> StreamTimes:
    settings = services.settings
    return StreamTimes(
        heartbeat=settings.stream_heartbeat_seconds,
        send=settings.stream_send_seconds,
        life=settings.stream_life_seconds,
    )
