"""What the API reads and says about keys, their quotas and sessions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from api.schemas.options import Strict
from api.schemas.requests import printable
from api.schemas.times import Moment

KEY_ID_EXAMPLE = "key_0199b2c4d5e67f0190a1b2c3d4e5f607"
BEARER_EXAMPLE = "bm_0199b2c4d5e67f0190a1b2c3d4e5f607_9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
KEY_EXAMPLE: dict[str, Any] = {
    "id": KEY_ID_EXAMPLE,
    "object": "api_key",
    "name": "ci",
    "state": "active",
    "scopes": ["artifacts:read", "jobs:read", "jobs:write"],
    "quotas": {
        "jobs_in_flight": 20,
        "stored_bytes": 50_000_000_000,
        "calibration_bytes": 1_000_000_000,
        "model_bytes": 200_000_000_000,
        "requests_per_minute": 600,
    },
    "created_at": "2026-11-24T08:00:00Z",
    "expires_at": "2027-11-24T08:00:00Z",
    "revoked_at": None,
    "usage": None,
}
NAMED_QUOTAS_EXAMPLE: dict[str, Any] = {"jobs_in_flight": 20, "requests_per_minute": 600}

Scope = Literal["jobs:read", "jobs:write", "jobs:cancel", "artifacts:read", "admin"]
KeyName = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(printable)]
Scopes = Annotated[list[Scope], Field(min_length=1, max_length=5, description="What the key may do.")]
Amount = Annotated[int, Field(ge=0, le=2**53)]
ExpiresAt = Annotated[Moment, Field(description="Until when it is taken; null: for ever.")]


class QuotasBody(Strict):
    """What a key may take; null: no limit."""

    jobs_in_flight: Amount | None = Field(default=None, description="Jobs that are not over.")
    stored_bytes: Amount | None = Field(default=None, description="Of its finished jobs' files.")
    calibration_bytes: Amount | None = Field(default=None, description="Of its calibration sets.")
    model_bytes: Amount | None = Field(default=None, description="Of its uploaded models.")
    requests_per_minute: Annotated[int, Field(ge=1, le=10**6)] | None = Field(
        default=None, description="Per API process; bursts may take a minute's worth at once."
    )


class NewKey(Strict):
    """A key to be made."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "ci", "scopes": ["jobs:read", "jobs:write"], "quotas": NAMED_QUOTAS_EXAMPLE}]
        }
    )

    name: KeyName
    scopes: Scopes
    expires_at: ExpiresAt | None = None
    quotas: QuotasBody = Field(default_factory=QuotasBody)


class KeyChanges(Strict):
    """What is left out stays as it is. quotas: replaced as a whole."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"quotas": NAMED_QUOTAS_EXAMPLE}]})

    name: KeyName = ""
    scopes: Scopes = Field(default_factory=list)
    expires_at: ExpiresAt | None = None
    quotas: QuotasBody = Field(default_factory=QuotasBody)


class UsageView(BaseModel):
    """What the key takes now, in the units of its quotas."""

    jobs_in_flight: int
    stored_bytes: int
    calibration_bytes: int
    model_bytes: int


class KeyView(BaseModel):
    """A key without its secret, of which only a hash is stored."""

    model_config = ConfigDict(json_schema_extra={"examples": [KEY_EXAMPLE]})

    id: str
    object: Literal["api_key"] = "api_key"
    name: str
    state: Literal["active", "expired", "revoked"]
    scopes: list[str]
    quotas: QuotasBody
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    usage: UsageView | None = Field(default=None, description="Of a single key; null in lists.")


class NewKeyView(KeyView):
    """A key with its bearer text, which is shown this once."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**KEY_EXAMPLE, "bearer": BEARER_EXAMPLE}]})

    bearer: str = Field(description="Send it as `Authorization: Bearer ...`.")


class KeyList(BaseModel):
    """Every key, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"object": "list", "data": [KEY_EXAMPLE]}]})

    object: Literal["list"] = "list"
    data: list[KeyView]


class SignIn(Strict):
    """A key to open a session with."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"key": BEARER_EXAMPLE}]})

    key: Annotated[str, StringConstraints(min_length=1, max_length=256)] = Field(repr=False)


class SessionView(BaseModel):
    """Who is calling, and how. csrf_token: what writes with the cookie carry in `X-CSRF-Token`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "session",
                    "by": "cookie",
                    "key_id": KEY_ID_EXAMPLE,
                    "name": "ci",
                    "scopes": ["jobs:read", "jobs:write"],
                    "csrf_token": "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8",
                    "expires_at": "2026-11-24T20:00:00Z",
                }
            ]
        }
    )

    object: Literal["session"] = "session"
    by: Literal["cookie", "key", "loopback"]
    key_id: str | None = Field(description="Null on loopback without a key.")
    name: str
    scopes: list[str]
    csrf_token: str | None = Field(description="Null unless `by` is `cookie`.")
    expires_at: datetime | None = Field(description="Of the session, or of the key that was sent.")
