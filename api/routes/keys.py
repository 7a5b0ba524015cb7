"""API keys: an operator makes, changes and revokes them. The first one comes from `bitmill keys create`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import APIRouter, Response

from api.deps import Admin, KeyId, ServicesDep
from api.problems import responses
from api.schemas.keys import KeyChanges, KeyList, KeyView, NewKey, NewKeyView, QuotasBody, UsageView
from store.keys import ApiKey, Quotas, Usage

router = APIRouter(prefix="/v1/api-keys", tags=["api keys"])

LOCATION = {"Location": {"schema": {"type": "string"}, "description": "Path of the key"}}


@router.post(
    "",
    status_code=201,
    operation_id="createApiKey",
    summary="Create a key",
    responses={
        201: {"description": "Created; the bearer is shown this once", "headers": LOCATION},
        **responses(400, 401, 403, 413, 415, 422, 503),
    },
)
def create_key(body: NewKey, services: ServicesDep, principal: Admin, response: Response) -> NewKeyView:  # noqa: ARG001 - asked for its scope
    """Makes a key and returns its bearer text, which is stored nowhere."""
    with services.database.transaction() as repository:
        key, bearer = repository.add_api_key(body.name, body.scopes, body.expires_at, _quotas(body.quotas))
    response.headers["Location"] = f"/v1/api-keys/{key.id}"
    return NewKeyView(**key_view(key).model_dump(), bearer=bearer)


@router.get("", operation_id="listApiKeys", summary="List keys", responses=responses(401, 403, 503))
def list_keys(services: ServicesDep, principal: Admin) -> KeyList:  # noqa: ARG001 - asked for its scope
    """Returns every key, revoked and expired ones too, newest first."""
    with services.database.reading() as repository:
        keys = repository.list_api_keys()
    return KeyList(data=[key_view(key) for key in keys])


@router.get("/{key_id}", operation_id="getApiKey", summary="Read a key", responses=responses(401, 403, 404, 503))
def get_key(key_id: KeyId, services: ServicesDep, principal: Admin) -> KeyView:  # noqa: ARG001 - asked for its scope
    """Returns one key and what it takes of its quotas now."""
    with services.database.reading() as repository:
        return key_view(repository.get_api_key(key_id), repository.usage(key_id))


@router.patch(
    "/{key_id}",
    operation_id="changeApiKey",
    summary="Change a key",
    responses=responses(400, 401, 403, 404, 413, 415, 422, 503),
)
def change_key(key_id: KeyId, body: KeyChanges, services: ServicesDep, principal: Admin) -> KeyView:  # noqa: ARG001 - asked for its scope
    """Changes name, scopes, expiry or quotas; it counts from the next request on. A revoked key stays revoked."""
    changes: dict[str, Any] = {name: getattr(body, name) for name in body.model_fields_set}
    if "quotas" in changes:
        changes["quotas"] = _quotas(body.quotas)
    with services.database.transaction() as repository:
        return key_view(repository.change_api_key(key_id, changes), repository.usage(key_id))


@router.delete(
    "/{key_id}",
    status_code=204,
    operation_id="revokeApiKey",
    summary="Revoke a key",
    responses=responses(401, 403, 404, 503),
)
def revoke_key(key_id: KeyId, services: ServicesDep, principal: Admin) -> None:  # noqa: ARG001 - asked for its scope
    """Ends a key and its sessions at once and for good. What it owns stays; repeating is harmless."""
    with services.database.transaction() as repository:
        repository.revoke_api_key(key_id)


def key_view(key: ApiKey, usage: Usage | None = None) -> KeyView:
    """Returns what may be shown of a key."""
    return KeyView(
        id=key.id,
        name=key.name,
        state=_state(key),
        scopes=sorted(key.scopes),
        quotas=QuotasBody(**asdict(key.quotas)),
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        usage=None if usage is None else UsageView(**asdict(usage)),
    )


def _quotas(body: QuotasBody) -> Quotas:
    return Quotas(**body.model_dump())


def _state(key: ApiKey) -> Literal["active", "expired", "revoked"]:
    if key.revoked_at is not None:
        return "revoked"
    # Only for show: whether a key is good is decided by the database's clock.
    return "expired" if key.expires_at is not None and key.expires_at <= datetime.now(UTC) else "active"
