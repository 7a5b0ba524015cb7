"""Models, before any job: what they are, what would be refused, what would be needed."""

from __future__ import annotations

from fastapi import APIRouter

from api.deps import JobWriter, ServicesDep
from api.inspection import inspect_model
from api.problems import responses
from api.schemas.models import InspectionView, InspectRequest

router = APIRouter(prefix="/v1", tags=["models"])


@router.post(
    "/models:inspect",
    operation_id="inspectModel",
    summary="Inspect a model",
    responses=responses(400, 401, 403, 413, 415, 422, 503),
)
def inspect(body: InspectRequest, services: ServicesDep, principal: JobWriter) -> InspectionView:  # noqa: ARG001 - asked for its scope
    """Reads a model folder's headers, not its weights, and tries configs on it. What a submit would refuse is told
    here as part of the answer, with the reason. Nothing is stored. A hub model is looked at only by a job's worker.
    """
    return inspect_model(body, services)
