"""Publications: a finished job's files on their way to a repository of the model hub, with the caller's own token."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter

from api.deps import JobId, JobReader, JobWriter, ServicesDep
from api.errors import HubTokenMissingError
from api.problems import responses
from api.schemas.requests import PublishTo
from api.schemas.retention import PublicationList, PublicationView
from store.publications import NewPublication, Publication

router = APIRouter(prefix="/v1/jobs", tags=["artifacts"])


@router.post(
    "/{job_id}:publish",
    status_code=202,
    operation_id="publishJob",
    summary="Upload a job's files to the hub",
    responses=responses(400, 401, 403, 404, 409, 413, 415, 422, 503),
)
def publish_job(job_id: JobId, body: PublishTo, services: ServicesDep, principal: JobWriter) -> PublicationView:
    """Lets a worker commit all files to a repository of the hub, with the token of `PUT /v1/hub-token`.

    What the hub refuses is final; a hub that does not answer is asked again four times within about an hour.
    """
    new = NewPublication(job_id=job_id, owner_key_id=principal.owner_id, repo=body.repo, private=body.private)
    with services.database.transaction() as repository:
        stored = repository.add_publication(new, principal.sees)
        if repository.hub_token(principal.owner_id) is None:
            raise HubTokenMissingError
    return _view(stored)


@router.get(
    "/{job_id}/publications",
    operation_id="listPublications",
    summary="List a job's uploads to the hub",
    responses=responses(401, 403, 404, 503),
)
def list_publications(job_id: JobId, services: ServicesDep, principal: JobReader) -> PublicationList:
    """Returns them newest first, with the hub's commit or what it said."""
    with services.database.reading() as repository:
        found = repository.list_publications(job_id, principal.sees)
    return PublicationList(data=[_view(publication) for publication in found])


def _view(publication: Publication) -> PublicationView:
    shown = asdict(publication)
    del shown["owner_key_id"]
    return PublicationView(**shown)
