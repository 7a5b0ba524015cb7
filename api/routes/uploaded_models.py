"""Uploaded models: send an archive of a model folder once, quantize it in many jobs."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from api.deps import JobReader, JobWriter, ServicesDep, UploadedModelId
from api.model_uploads import require_room, store_model
from api.problems import responses
from api.schemas.files import UploadedModelList, UploadedModelView
from api.schemas.retention import KeepChanges
from api.schemas.uploads import upload_body
from api.services import Services
from api.uploads import announced_bytes, receive_archive, upload_folder
from api.views import uploaded_model_view
from store.models import UploadedModel

router = APIRouter(prefix="/v1/uploaded-models", tags=["models"])


@router.post(
    "",
    status_code=201,
    operation_id="uploadModel",
    summary="Upload a model",
    openapi_extra=upload_body(
        "A .tar, .tar.gz, .tar.bz2 or .zip of one model folder: config.json, the tokenizer and safetensors files at "
        "its top or below one common folder. Other files are left out; code, pickles and links are refused."
    ),
    responses=responses(400, 401, 403, 408, 413, 415, 422, 503, 507),
)
async def upload_model(
    request: Request, response: Response, services: ServicesDep, principal: JobWriter
) -> UploadedModelView:
    """Checks an archive as a local folder would be and stores its files. The same files give the same model again.

    Async, unlike the other routes: the body is read as it arrives.
    """
    await run_in_threadpool(
        require_room, services, principal, announced_bytes(request), upload_folder(services.settings)
    )
    async with receive_archive(request, services.settings) as upload:
        stored = await to_thread.run_sync(store_model, services, principal, upload, limiter=services.uploads)
        view = await run_in_threadpool(_view, services, stored)
    response.headers["Location"] = f"/v1/uploaded-models/{stored.id}"
    return view


@router.get("", operation_id="listUploadedModels", summary="List uploaded models", responses=responses(401, 403, 503))
def list_uploaded_models(services: ServicesDep, principal: JobReader) -> UploadedModelList:
    """Returns the newest models first."""
    with services.database.reading() as repository:
        stored = repository.list_uploaded_models(principal.sees)
    return UploadedModelList(data=[uploaded_model_view(model) for model in stored])


@router.get(
    "/{uploaded_model_id}",
    operation_id="getUploadedModel",
    summary="Read an uploaded model",
    responses=responses(401, 403, 404, 503),
)
def get_uploaded_model(
    uploaded_model_id: UploadedModelId, services: ServicesDep, principal: JobReader
) -> UploadedModelView:
    """Returns what is known of a model, with its files and their hashes."""
    with services.database.reading() as repository:
        stored = repository.get_uploaded_model(uploaded_model_id, principal.sees)
    return _view(services, stored)


@router.patch(
    "/{uploaded_model_id}",
    operation_id="keepUploadedModel",
    summary="Say how long an uploaded model is kept",
    responses=responses(400, 401, 403, 404, 413, 415, 422, 503),
)
def keep_uploaded_model(
    uploaded_model_id: UploadedModelId, body: KeepChanges, services: ServicesDep, principal: JobWriter
) -> UploadedModelView:
    """Pins a model or sets when it goes; while an unfinished job needs it, it stays."""
    changes = {name: getattr(body, name) for name in body.model_fields_set}
    with services.database.transaction() as repository:
        stored = repository.keep_uploaded_model(uploaded_model_id, changes, principal.sees)
    return _view(services, stored)


@router.delete(
    "/{uploaded_model_id}",
    status_code=204,
    operation_id="deleteUploadedModel",
    summary="Delete an uploaded model",
    responses=responses(401, 403, 404, 409, 503),
)
def delete_uploaded_model(uploaded_model_id: UploadedModelId, services: ServicesDep, principal: JobWriter) -> None:
    """Removes a model for good, not while an unfinished job needs it. Jobs on it stay, but cannot be retried."""
    with services.database.transaction() as repository:
        repository.delete_uploaded_model(uploaded_model_id, principal.sees)


def _view(services: Services, stored: UploadedModel) -> UploadedModelView:
    with services.database.reading() as repository:
        return uploaded_model_view(stored, repository.list_model_files(stored.id))
