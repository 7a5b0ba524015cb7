"""Whether the process lives, whether it can serve, and its measurements. None of them tells anything about a job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict

from api.deps import JobReader, ServicesDep
from api.problems import responses
from api.services import Services
from store.errors import StoreError

router = APIRouter(tags=["health"])

EXAMPLE = '# TYPE bitmill_jobs gauge\nbitmill_jobs{state="running"} 1.0\n'

Check = Literal["ok", "failing"]


class Liveness(BaseModel):
    """The process answers."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """ready: everything answers. degraded: jobs are accepted, but wait for the dispatcher. unavailable: do not send."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"status": "ready", "database": "ok", "artifacts": "ok", "broker": "ok"}],
        }
    )

    status: Literal["ready", "degraded", "unavailable"]
    database: Check
    artifacts: Check
    broker: Check


@router.get("/livez", operation_id="livez", summary="Is the process alive?")
async def livez() -> Liveness:
    """Answers from memory, so that a database that is away does not get the process restarted."""
    return Liveness()


@router.get(
    "/readyz",
    operation_id="readyz",
    summary="Can it serve?",
    responses={503: {"description": "The database or the artifact store does not answer", "model": Readiness}},
)
def readyz(services: ServicesDep, response: Response) -> Readiness:
    """Asks the database and the artifact store. A broker that is away degrades the service and does not stop it."""
    database = _check(services.database.ping)
    artifacts = _check(lambda: _probe_artifacts(services))
    broker: Check = "failing" if services.waker.suspended else "ok"
    status: Literal["ready", "degraded", "unavailable"] = "ready" if broker == "ok" else "degraded"
    if "failing" in {database, artifacts}:
        status, response.status_code = "unavailable", 503
    return Readiness(status=status, database=database, artifacts=artifacts, broker=broker)


def _probe_artifacts(services: Services) -> None:
    # Asks for a blob that cannot exist: any answer shows that the store is there.
    services.artifacts.exists("0" * 64)


def _check(probe: Callable[[], None]) -> Check:
    try:
        probe()
    except StoreError:
        return "failing"
    return "ok"


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}, "example": EXAMPLE}}},
        **responses(401, 403, 503),
    },
)
def metrics(services: ServicesDep, principal: JobReader) -> Response:  # noqa: ARG001 - asks for the right to read
    """Returns counters of this process's requests, and what the database says of jobs and workers."""
    with services.database.reading() as repository:
        now = repository.measure()
    return Response(services.metrics.render(now), media_type=CONTENT_TYPE_LATEST)
