"""Models, before any job: what they are, what would be refused, what would be needed."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter

from api.deps import JobWriter, ServicesDep
from api.inspection import inspect_model
from api.problems import responses
from api.schemas.models import InspectionView, InspectRequest, ModelFolderList, ModelFolderView
from core.preflight.listing import list_models

router = APIRouter(prefix="/v1", tags=["models"])


@router.get(
    "/models",
    operation_id="listModels",
    summary="List model folders",
    responses=responses(401, 403, 503),
)
def list_folders(services: ServicesDep, principal: JobWriter) -> ModelFolderList:  # noqa: ARG001 - asked for its scope
    """Looks through the allowed roots for folders that a job may name; a model of the hub is named without it.

    A folder is judged by its config.json; whether a job on it would be accepted is told by `models:inspect`.
    """
    roots = {root.name: root.path for root in services.settings.model_roots}
    found = list_models(roots)
    return ModelFolderList(
        data=[ModelFolderView(**asdict(model)) for model in found.models],
        roots=list(roots),
        truncated=found.truncated,
    )


@router.post(
    "/models:inspect",
    operation_id="inspectModel",
    summary="Inspect a model",
    responses=responses(400, 401, 403, 413, 415, 422, 503),
)
def inspect(body: InspectRequest, services: ServicesDep, principal: JobWriter) -> InspectionView:
    """Reads the headers of a model folder or an upload, not its weights, and tries configs on it. What a submit would
    refuse is told here as part of the answer, with the reason. Nothing is stored. A hub model is looked at only by a
    job's worker.
    """
    return inspect_model(body, services, principal)
