"""Calibration sets: upload a text once, use it in many jobs."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from api.deps import CalibrationSetId, JobReader, JobWriter, Principal, ServicesDep
from api.problems import responses
from api.schemas.files import CalibrationSetList, CalibrationSetView
from api.schemas.retention import KeepChanges
from api.schemas.uploads import upload_body
from api.services import Services
from api.uploads import Upload, receive_text
from api.views import calibration_set_view
from core.calibration.texts import describe
from store.jobs import NewCalibrationSet

router = APIRouter(prefix="/v1/calibration-sets", tags=["calibration sets"])


@router.post(
    "",
    status_code=201,
    operation_id="uploadCalibrationSet",
    summary="Upload a calibration text",
    openapi_extra=upload_body('UTF-8 text, or JSONL: {"text": ...} or {"messages": [...]} on each line.'),
    responses=responses(400, 401, 403, 408, 413, 415, 422, 503),
)
async def upload_calibration_set(
    request: Request, response: Response, services: ServicesDep, principal: JobWriter
) -> CalibrationSetView:
    """Streams a text to the store: checked, counted, hashed. The same bytes give the same set again.

    Async, unlike the other routes: the body is read as it arrives.
    """
    async with receive_text(request, services.settings) as upload:
        view = await run_in_threadpool(_store, services, principal, upload)
    response.headers["Location"] = f"/v1/calibration-sets/{view.id}"
    return view


def _store(services: Services, principal: Principal, upload: Upload) -> CalibrationSetView:
    facts = describe(upload.path)
    sha256, size_bytes = services.artifacts.put_file(upload.path)
    with services.database.transaction() as repository:
        stored = repository.add_calibration_set(
            NewCalibrationSet(
                owner_key_id=principal.owner_id,
                name=upload.name,
                format=facts.format,
                sha256=sha256,
                size_bytes=size_bytes,
                documents=facts.documents,
            )
        )
        if principal.quotas.amounts:
            repository.require_quota(principal.owner_id)
    services.calibration_facts.remember(facts)
    return calibration_set_view(stored, facts)


@router.get("", operation_id="listCalibrationSets", summary="List calibration sets", responses=responses(401, 403, 503))
def list_calibration_sets(services: ServicesDep, principal: JobReader) -> CalibrationSetList:
    """Returns the newest sets first."""
    with services.database.reading() as repository:
        stored = repository.list_calibration_sets(principal.sees)
    return CalibrationSetList(data=[calibration_set_view(one) for one in stored])


@router.get(
    "/{calibration_set_id}",
    operation_id="getCalibrationSet",
    summary="Read a calibration set",
    responses=responses(401, 403, 404, 503),
)
def get_calibration_set(
    calibration_set_id: CalibrationSetId, services: ServicesDep, principal: JobReader
) -> CalibrationSetView:
    """Returns what is known of a text, and what a look over it found; its bytes stay in the store."""
    with services.database.reading() as repository:
        stored = repository.get_calibration_set(calibration_set_id, principal.sees)
    return calibration_set_view(stored, services.calibration_facts.of(stored))


@router.patch(
    "/{calibration_set_id}",
    operation_id="keepCalibrationSet",
    summary="Say how long a calibration set is kept",
    responses=responses(400, 401, 403, 404, 413, 415, 422, 503),
)
def keep_calibration_set(
    calibration_set_id: CalibrationSetId, body: KeepChanges, services: ServicesDep, principal: JobWriter
) -> CalibrationSetView:
    """Pins a text or sets when it goes; while an unfinished job needs it, it stays."""
    changes = {name: getattr(body, name) for name in body.model_fields_set}
    with services.database.transaction() as repository:
        stored = repository.keep_calibration_set(calibration_set_id, changes, principal.sees)
    return calibration_set_view(stored, services.calibration_facts.of(stored))


@router.delete(
    "/{calibration_set_id}",
    status_code=204,
    operation_id="deleteCalibrationSet",
    summary="Delete a calibration set",
    responses=responses(401, 403, 404, 409, 503),
)
def delete_calibration_set(calibration_set_id: CalibrationSetId, services: ServicesDep, principal: JobWriter) -> None:
    """Removes a text for good. Jobs that were calibrated on it stay, but cannot be retried."""
    with services.database.transaction() as repository:
        repository.delete_calibration_set(calibration_set_id, principal.sees)
