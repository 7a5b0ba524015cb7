"""Webhooks: who is told of events, what became of each message, and sending one again. Workers do the sending."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from api.deps import DeliveryId, JobReader, JobWriter, ServicesDep, WebhookId
from api.errors import InvalidRequestError
from api.paging import PageRequest, cursor_of, place_by_age
from api.problems import FieldProblem, responses
from api.schemas.webhooks import (
    DeliveryList,
    DeliveryView,
    NewWebhook,
    NewWebhookView,
    WebhookChanges,
    WebhookList,
    WebhookView,
    plainly_refused,
)
from api.services import Services
from store.webhooks import Delivery, Webhook, WebhookKind, event_type, kind_of
from store.webhooks import NewWebhook as StoredWebhook

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

PAGE_SIZE = 50
PAGE_SIZE_MAX = 200
SECRET_BYTES = 32
LOCATION = {"Location": {"schema": {"type": "string"}, "description": "Path of the webhook"}}
CREATED: dict[int | str, dict[str, Any]] = {
    201: {"description": "Created; the secret is shown this once", "headers": LOCATION},
    **responses(400, 401, 403, 409, 413, 415, 422, 503),
}


@router.post("", status_code=201, operation_id="createWebhook", summary="Create a webhook", responses=CREATED)
def create_webhook(body: NewWebhook, services: ServicesDep, principal: JobWriter, response: Response) -> NewWebhookView:
    """Tells a receiver of the events of this key's jobs, of an admin's of everybody's, from now on.

    Messages follow Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature`. An answer that is not 2xx
    is tried again after 5 s, 5 min, 30 min, 2, 5, 10, 14, 20 and 24 h; 410 disables the webhook; redirects are not
    followed. A message may come twice: its id stays the same.
    """
    _require_sendable(body.url, services)
    secret = _new_secret()
    new = StoredWebhook(
        owner_key_id=principal.owner_id,
        all_owners=principal.sees is None,
        name=body.name,
        url=body.url,
        kinds=_kinds(body.events),
        secret_sealed=services.vault.seal(secret),
    )
    with services.database.transaction() as repository:
        webhook = repository.add_webhook(new)
    response.headers["Location"] = f"/v1/webhooks/{webhook.id}"
    return NewWebhookView(**webhook_view(webhook).model_dump(), secret=secret)


@router.get("", operation_id="listWebhooks", summary="List webhooks", responses=responses(401, 403, 503))
def list_webhooks(services: ServicesDep, principal: JobReader) -> WebhookList:
    """Returns the newest first."""
    with services.database.reading() as repository:
        stored = repository.list_webhooks(principal.sees)
    return WebhookList(data=[webhook_view(webhook) for webhook in stored])


@router.get(
    "/{webhook_id}", operation_id="getWebhook", summary="Read a webhook", responses=responses(401, 403, 404, 503)
)
def get_webhook(webhook_id: WebhookId, services: ServicesDep, principal: JobReader) -> WebhookView:
    """Returns one webhook."""
    with services.database.reading() as repository:
        return webhook_view(repository.get_webhook(webhook_id, principal.sees))


@router.patch(
    "/{webhook_id}",
    operation_id="changeWebhook",
    summary="Change a webhook",
    responses=responses(400, 401, 403, 404, 413, 415, 422, 503),
)
def change_webhook(
    webhook_id: WebhookId, body: WebhookChanges, services: ServicesDep, principal: JobWriter
) -> WebhookView:
    """Changes name, address or events, or stops and starts it. What waits to be sent goes to the new address."""
    changes: dict[str, Any] = {name: getattr(body, name) for name in body.model_fields_set}
    if "url" in changes:
        _require_sendable(body.url, services)
    if "events" in changes:
        changes["kinds"] = _kinds(changes.pop("events"))
    with services.database.transaction() as repository:
        return webhook_view(repository.change_webhook(webhook_id, changes, principal.sees))


@router.post(
    "/{webhook_id}:rotate-secret",
    operation_id="rotateWebhookSecret",
    summary="Give a webhook a new secret",
    responses=responses(401, 403, 404, 409, 503),
)
def rotate_secret(webhook_id: WebhookId, services: ServicesDep, principal: JobWriter) -> NewWebhookView:
    """Returns a new secret, shown this once; every attempt from now on is signed with it."""
    secret = _new_secret()
    changes = {"secret_sealed": services.vault.seal(secret)}
    with services.database.transaction() as repository:
        webhook = repository.change_webhook(webhook_id, changes, principal.sees)
    return NewWebhookView(**webhook_view(webhook).model_dump(), secret=secret)


@router.delete(
    "/{webhook_id}",
    status_code=204,
    operation_id="deleteWebhook",
    summary="Delete a webhook",
    responses=responses(401, 403, 404, 503),
)
def delete_webhook(webhook_id: WebhookId, services: ServicesDep, principal: JobWriter) -> None:
    """Removes a webhook with its deliveries; what was not sent is not sent any more."""
    with services.database.transaction() as repository:
        repository.delete_webhook(webhook_id, principal.sees)


@router.post(
    "/{webhook_id}:test",
    status_code=202,
    operation_id="testWebhook",
    summary="Send a test message",
    responses=responses(401, 403, 404, 503),
)
def try_webhook(webhook_id: WebhookId, services: ServicesDep, principal: JobWriter) -> DeliveryView:
    """Queues a message of the type `webhook.test`; what became of it is in the deliveries."""
    with services.database.transaction() as repository:
        return delivery_view(repository.add_test_delivery(webhook_id, principal.sees))


@router.get(
    "/{webhook_id}/deliveries",
    operation_id="listDeliveries",
    summary="List a webhook's deliveries",
    responses=responses(400, 401, 403, 404, 422, 503),
)
def list_deliveries(
    webhook_id: WebhookId,
    services: ServicesDep,
    principal: JobReader,
    *,
    page_size: Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX, description="Rows at most.")] = PAGE_SIZE,
    page_token: Annotated[str | None, Query(max_length=512, description="next_page_token of the page before.")] = None,
) -> DeliveryList:
    """Returns messages newest first, with how their last attempt went."""
    bound_to = {"list": "deliveries", "webhook": webhook_id, "sees": principal.sees}
    asked = PageRequest(signer=services.signer, bound_to=bound_to, size=page_size, token=page_token)
    after = asked.after(cursor_of)
    with services.database.reading() as repository:
        found = repository.list_deliveries(webhook_id, asked.limit, after, owner=principal.sees)
    page = asked.cut(found, place_by_age)
    return DeliveryList(data=[delivery_view(delivery) for delivery in page.rows], next_page_token=page.next_token)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}:replay",
    status_code=202,
    operation_id="replayDelivery",
    summary="Send a message again",
    responses=responses(401, 403, 404, 503),
)
def replay_delivery(
    webhook_id: WebhookId, delivery_id: DeliveryId, services: ServicesDep, principal: JobWriter
) -> DeliveryView:
    """Queues a message again under its id, whatever became of it before."""
    with services.database.transaction() as repository:
        return delivery_view(repository.replay_delivery(webhook_id, delivery_id, principal.sees))


def webhook_view(webhook: Webhook) -> WebhookView:
    """Returns what may be shown of a webhook."""
    return WebhookView(
        id=webhook.id,
        name=webhook.name,
        url=webhook.url,
        events=[event_type(kind) for kind in webhook.kinds],
        enabled=webhook.enabled,
        disabled_reason=webhook.disabled_reason,
        all_owners=webhook.all_owners,
        created_at=webhook.created_at,
    )


def delivery_view(delivery: Delivery) -> DeliveryView:
    """Returns one message."""
    return DeliveryView(
        id=delivery.id,
        webhook_id=delivery.webhook_id,
        job_id=delivery.job_id,
        type=delivery.body["type"],
        state=delivery.state,
        attempts=delivery.attempts,
        status_code=delivery.status_code,
        error=delivery.error,
        body=dict(delivery.body),
        created_at=delivery.created_at,
        last_attempt_at=delivery.last_attempt_at,
        next_attempt_at=delivery.next_attempt_at,
    )


def _require_sendable(url: str, services: Services) -> None:
    reason = plainly_refused(url, private=services.settings.webhooks_to_private)
    if reason is not None:
        detail = f"The service sends nothing to {url}: it {reason}."
        hint = "Name a public https address, or let the operator set BITMILL_WEBHOOKS_TO_PRIVATE."
        raise InvalidRequestError(
            "webhook_url_refused", detail, FieldProblem(pointer="#/url", detail=reason), hint=hint
        )


def _new_secret() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"


def _kinds(events: Sequence[str]) -> tuple[WebhookKind, ...]:
    return tuple(dict.fromkeys(kind_of(event) for event in events))
