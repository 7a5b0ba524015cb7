"""Webhooks and their deliveries (Standard Webhooks 1.0): plain values, no SQL and no HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from store.jobs import EventKind
from store.kept import NoticeKind

WebhookKind = EventKind | NoticeKind
TEST_TYPE = "webhook.test"
JOB_TYPES = "job."
RETRY_SECONDS = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""How long after each failed attempt the next one comes; after the last of them the delivery has failed."""


class DeliveryState(StrEnum):
    """The states of a delivery."""

    PENDING = "pending"
    """In: an event, a test, a replay. Out: a worker that sends it. If that dies, another sends it again."""
    DELIVERED = "delivered"
    """In: an answer of 2xx. Out: only a replay."""
    FAILED = "failed"
    """In: the last attempt failed. Out: only a replay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWebhook:
    """A webhook to be stored. all_owners: it tells of every owner's jobs. secret_sealed: as the vault wrote it."""

    owner_key_id: str
    all_owners: bool
    name: str
    url: str
    kinds: tuple[WebhookKind, ...]
    secret_sealed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A stored webhook. disabled_reason: why it is not enabled; empty where its owner did that."""

    id: str
    owner_key_id: str
    all_owners: bool
    name: str
    url: str
    kinds: tuple[WebhookKind, ...]
    secret_sealed: str
    enabled: bool
    disabled_reason: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message to one webhook. id: the `webhook-id`, the same in every attempt. body: what is sent.

    status_code, error: of the last attempt. next_attempt_at: None once it is over.
    """

    id: str
    webhook_id: str
    job_id: str | None
    body: Mapping[str, Any]
    state: DeliveryState
    attempts: int
    status_code: int | None
    error: str | None
    created_at: datetime
    last_attempt_at: datetime | None
    next_attempt_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A delivery that is to be sent now, with where to and what it is signed with."""

    delivery: Delivery
    url: str
    secret_sealed: str


def event_type(kind: str) -> str:
    """Returns what a message about an event is called, such as `job.succeeded`."""
    return str(kind) if isinstance(kind, NoticeKind) else f"{JOB_TYPES}{kind}"


def kind_of(message_type: str) -> WebhookKind:
    """Turns the name of a message back into what it tells of; raises ValueError where there is none of that name."""
    if message_type.startswith(JOB_TYPES):
        return EventKind(message_type.removeprefix(JOB_TYPES))
    return NoticeKind(message_type)
