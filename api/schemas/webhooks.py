"""What the API reads and says about webhooks and their deliveries."""

from __future__ import annotations

import ipaddress
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from api.schemas.options import Strict
from api.schemas.requests import printable
from store.jobs import EventKind
from store.kept import NoticeKind
from store.webhooks import DeliveryState

WEBHOOK_EXAMPLE: dict[str, Any] = {
    "id": "whk_0199b2c4d5e67f0190a1b2c3d4e5f607",
    "object": "webhook",
    "name": "build server",
    "url": "https://ci.example.com/hooks/bitmill",
    "events": ["job.succeeded", "job.failed", "job.cancelled"],
    "enabled": True,
    "disabled_reason": "",
    "all_owners": False,
    "created_at": "2026-11-24T08:00:00Z",
}
SECRET_EXAMPLE = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="  # noqa: S105 - an example
DELIVERY_EXAMPLE: dict[str, Any] = {
    "id": "msg_0199b2c5a1b27f0190a1b2c3d4e5f6bb",
    "object": "delivery",
    "webhook_id": WEBHOOK_EXAMPLE["id"],
    "job_id": "job_0199b2c4d5e67f0190a1b2c3d4e5f607",
    "type": "job.succeeded",
    "state": "delivered",
    "attempts": 1,
    "status_code": 200,
    "error": None,
    "body": {
        "type": "job.succeeded",
        "timestamp": "2026-11-24T09:02:10Z",
        "data": {"job_id": "job_0199b2c4d5e67f0190a1b2c3d4e5f607", "state": "succeeded"},
    },
    "created_at": "2026-11-24T09:02:11Z",
    "last_attempt_at": "2026-11-24T09:02:11Z",
    "next_attempt_at": None,
}


def _plain_url(url: str) -> str:
    """What can be told without a network; where a name leads is looked at with every delivery."""
    parts = urlsplit(url)
    if not parts.hostname or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("must be an absolute URL of ASCII characters")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must carry no user name or password: the signature proves who sent it")
    if parts.fragment:
        raise ValueError("must carry no fragment")
    if parts.port == 0:
        raise ValueError("must name a port that can be connected to")
    return url


Url = Annotated[
    str, StringConstraints(pattern=r"^https?://", max_length=2048), AfterValidator(_plain_url), Field(repr=True)
]
Name = Annotated[str, StringConstraints(max_length=200), AfterValidator(printable)]
EventType = Literal[
    "job.submitted",
    "job.claimed",
    "job.cancel_requested",
    "job.released",
    "job.lease_lost",
    "job.retried",
    "job.succeeded",
    "job.failed",
    "job.cancelled",
    "job.artifacts_expiring",
    "job.artifacts_expired",
    "calibration_set.expiring",
    "calibration_set.expired",
    "uploaded_model.expiring",
    "uploaded_model.expired",
]
Events = Annotated[
    list[EventType],
    Field(min_length=1, max_length=len(EventKind) + len(NoticeKind), description="What it tells of."),
]
DEFAULT_EVENTS: list[EventType] = ["job.succeeded", "job.failed", "job.cancelled"]


class NewWebhook(Strict):
    """A receiver of messages."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"url": WEBHOOK_EXAMPLE["url"], "name": "build server"}]})

    url: Url = Field(description="https, and a public address unless the operator allows others.")
    name: Name = ""
    events: Events = Field(default=DEFAULT_EVENTS)


class WebhookChanges(Strict):
    """What is left out stays as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"enabled": True}]})

    url: Url = "https://"
    name: Name = ""
    events: Events = Field(default=DEFAULT_EVENTS)
    enabled: bool = Field(default=True, description="Enabling again tells of what happens from then on.")


class WebhookView(BaseModel):
    """A webhook without its secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [WEBHOOK_EXAMPLE]})

    id: str
    object: Literal["webhook"] = "webhook"
    name: str
    url: str
    events: list[str]
    enabled: bool
    disabled_reason: str = Field(description="Empty unless the receiver answered 410.")
    all_owners: bool = Field(description="Whether it tells of every owner's jobs: those of an admin do.")
    created_at: datetime


class NewWebhookView(WebhookView):
    """A webhook with its secret, which is shown this once."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**WEBHOOK_EXAMPLE, "secret": SECRET_EXAMPLE}]})

    secret: str = Field(description="Signs messages as Standard Webhooks says; its libraries take it as it is.")


class WebhookList(BaseModel):
    """The newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"object": "list", "data": [WEBHOOK_EXAMPLE]}]})

    object: Literal["list"] = "list"
    data: list[WebhookView]


class DeliveryView(BaseModel):
    """One message; its id is the `webhook-id` of every attempt, by which a receiver tells repeats."""

    model_config = ConfigDict(json_schema_extra={"examples": [DELIVERY_EXAMPLE]})

    id: str
    object: Literal["delivery"] = "delivery"
    webhook_id: str
    job_id: str | None
    type: str
    state: DeliveryState
    attempts: int
    status_code: int | None = Field(description="Of the last attempt; null where nothing answered.")
    error: str | None
    body: dict[str, Any]
    created_at: datetime
    last_attempt_at: datetime | None
    next_attempt_at: datetime | None = Field(description="Null once it is over.")


class DeliveryList(BaseModel):
    """A page of deliveries, newest first. They are kept for 30 days."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"object": "list", "data": [DELIVERY_EXAMPLE], "next_page_token": None}]}
    )

    object: Literal["list"] = "list"
    data: list[DeliveryView]
    next_page_token: str | None = Field(description="Null on the last page.")


def plainly_refused(url: str, *, private: bool) -> str | None:
    """Returns why a URL can never be delivered to, as far as the URL alone tells; None where it may be."""
    parts = urlsplit(url)
    if private:
        return None
    if parts.scheme != "https":
        return "must be https"
    try:
        address = ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        return "must not be this machine" if parts.hostname in {"localhost", "localhost."} else None
    return None if address.is_global and not address.is_multicast else "must be a public address"
