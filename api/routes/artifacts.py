"""A finished job's files: their list, their bytes, all of them as one archive, their checksums."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from api.deps import ArtifactId, ArtifactReader, JobId, JobReader, ServicesDep
from api.downloads import archive_response, artifact_response, attachment, checksum_lines
from api.problems import responses
from api.schemas.files import SHA256_EXAMPLE, ArtifactList
from api.views import artifact_view
from store.errors import NotFoundError
from store.jobs import Artifact, Job

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["artifacts"])

REDIRECT_SECONDS = 300
BINARY = {"schema": {"type": "string", "format": "binary"}}
FILE_HEADERS = {
    "ETag": {"schema": {"type": "string"}, "description": "The file's sha256, strong"},
    "Repr-Digest": {"schema": {"type": "string"}, "description": "The whole file's sha256 (RFC 9530)"},
    "Accept-Ranges": {"schema": {"type": "string"}, "description": "bytes"},
}
FILE: dict[str, Any] = {"content": {"*/*": BINARY}, "headers": FILE_HEADERS}
FILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole file", **FILE},
    206: {"description": "The one range that was asked for", **FILE},
    304: {"description": "If-None-Match names this file"},
    307: {"description": "The object store has it, at the URL in Location"},
    **responses(401, 403, 404, 412, 416, 422, 503),
}


@router.get(
    "/artifacts",
    operation_id="listArtifacts",
    summary="List a job's files",
    responses=responses(401, 403, 404, 503),
)
def list_artifacts(job_id: JobId, services: ServicesDep, principal: JobReader) -> ArtifactList:
    """Returns every file with size and sha256; empty until the job has succeeded."""
    with services.database.reading() as repository:
        artifacts = repository.list_artifacts(job_id, owner=principal.sees)
    return ArtifactList(data=[artifact_view(artifact) for artifact in artifacts])


@router.head("/artifacts/{artifact_id}/content", include_in_schema=False)
@router.get(
    "/artifacts/{artifact_id}/content",
    operation_id="downloadArtifact",
    summary="Download a file",
    response_class=Response,
    responses=FILE_RESPONSES,
)
def download_artifact(
    job_id: JobId,
    artifact_id: ArtifactId,
    request: Request,
    services: ServicesDep,
    principal: ArtifactReader,
    *,
    redirect: Annotated[bool, Query(description="Lead to the object store, where there is one; else stream")] = False,
) -> Response:
    """Streams one file. Takes Range (one range), If-Range, If-Match and If-None-Match; HEAD gives the headers alone.

    With `redirect=true` and a bucket as artifact store it answers 307 with a URL of the bucket, good for a few minutes.
    """
    with services.database.reading() as repository:
        artifact = repository.get_artifact(job_id, artifact_id, owner=principal.sees)
    url = services.artifacts.signed_url(artifact.sha256, REDIRECT_SECONDS) if redirect else None
    if url is not None:
        return RedirectResponse(url, status_code=307, headers={"Cache-Control": "no-store"})
    return artifact_response(artifact, services.artifacts, request.headers, head=request.method == "HEAD")


@router.head("/archive.zip", include_in_schema=False)
@router.get(
    "/archive.zip",
    operation_id="downloadArchive",
    summary="Download all files as one zip",
    response_class=Response,
    responses={
        200: {"description": "The archive, with its length", "content": {"application/zip": BINARY}},
        304: {"description": "If-None-Match names the same files"},
        **responses(401, 403, 404, 503),
    },
)
def download_archive(job_id: JobId, request: Request, services: ServicesDep, principal: ArtifactReader) -> Response:
    """Streams all files in one folder, uncompressed (weights do not compress), without building the archive first."""
    job, artifacts = _published(services, job_id, principal.sees)
    return archive_response(job, artifacts, services.artifacts, request.headers, head=request.method == "HEAD")


@router.get(
    "/SHA256SUMS",
    operation_id="getChecksums",
    summary="Checksums of all files",
    response_class=Response,
    responses={
        200: {
            "description": "Lines for `sha256sum --check`",
            "content": {"text/plain": {"schema": {"type": "string"}, "example": f"{SHA256_EXAMPLE}  config.json\n"}},
        },
        **responses(401, 403, 404, 503),
    },
)
def get_checksums(job_id: JobId, services: ServicesDep, principal: ArtifactReader) -> Response:
    """Returns one line per file, of the hashes that were taken when it was published."""
    _, artifacts = _published(services, job_id, principal.sees)
    headers = {"Content-Disposition": attachment("SHA256SUMS")}
    return Response(checksum_lines(artifacts), media_type="text/plain; charset=utf-8", headers=headers)


def _published(services: ServicesDep, job_id: str, sees: str | None) -> tuple[Job, tuple[Artifact, ...]]:
    with services.database.reading() as repository:
        job = repository.get_job(job_id, sees)
        artifacts = repository.list_artifacts(job_id, owner=sees)
    if not artifacts:
        raise NotFoundError("artifact of job", job_id)
    return job, artifacts
