"""The caller's token of the model hub: stored encrypted, given to the downloader alone, never shown again."""

from __future__ import annotations

from fastapi import APIRouter

from api.deps import JobReader, JobWriter, ServicesDep
from api.problems import responses
from api.schemas.retention import HubTokenBody, HubTokenView

router = APIRouter(prefix="/v1/hub-token", tags=["models"])


@router.put(
    "",
    operation_id="setHubToken",
    summary="Store a hub token",
    responses=responses(400, 401, 403, 409, 413, 415, 422, 503),
)
def set_hub_token(body: HubTokenBody, services: ServicesDep, principal: JobWriter) -> HubTokenView:
    """Stores the token with which this key's jobs fetch gated and private models, in place of an earlier one.

    The process that downloads gets it, and no other: not the one that quantizes, no log and no artifact.
    """
    sealed = services.vault.seal(body.token)
    with services.database.transaction() as repository:
        return HubTokenView(stored=True, created_at=repository.set_hub_token(principal.owner_id, sealed))


@router.get("", operation_id="getHubToken", summary="Is there a hub token?", responses=responses(401, 403, 503))
def get_hub_token(services: ServicesDep, principal: JobReader) -> HubTokenView:
    """Tells whether this key has a token, and since when."""
    with services.database.reading() as repository:
        found = repository.hub_token(principal.owner_id)
    return HubTokenView(stored=found is not None, created_at=None if found is None else found[1])


@router.delete(
    "",
    status_code=204,
    operation_id="removeHubToken",
    summary="Forget the hub token",
    responses=responses(401, 403, 503),
)
def remove_hub_token(services: ServicesDep, principal: JobWriter) -> None:
    """Forgets this key's token; jobs that are downloading have it until they are through."""
    with services.database.transaction() as repository:
        repository.remove_hub_token(principal.owner_id)
