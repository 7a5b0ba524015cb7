"""What the API reads and says about how long things are kept, and about an owner's hub token."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.schemas.options import Strict
from api.schemas.times import Moment
from store.publications import PublicationState

PUBLICATION_EXAMPLE: dict[str, Any] = {
    "id": "pub_0199b2c5a1b27f0190a1b2c3d4e5f6bb",
    "object": "publication",
    "job_id": "job_0199b2c4d5e67f0190a1b2c3d4e5f607",
    "repo": "acme/tiny-4bit",
    "private": True,
    "state": "published",
    "attempts": 1,
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "error": None,
    "created_at": "2026-11-24T09:05:00Z",
    "finished_at": "2026-11-24T09:06:12Z",
}


class KeepChanges(Strict):
    """What is left out stays as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"pinned": True}]})

    pinned: bool = Field(default=False, description="Kept whatever the time says.")
    expires_at: Moment | None = Field(
        default=None,
        description="When it goes, after a warning; one that is past: after the notice. Null: by the service's rule.",
    )


class HubTokenBody(Strict):
    """A token of the model hub."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"token": "hf_xxxxxxxxxxxxxxxxxxxx"}]})

    token: Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,512}$")] = Field(repr=False)


class HubTokenView(BaseModel):
    """Whether this key has a token; the token itself is never shown again."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"object": "hub_token", "stored": True, "created_at": "2026-11-24T08:00:00Z"}]}
    )

    object: Literal["hub_token"] = "hub_token"
    stored: bool
    created_at: datetime | None


class PublicationView(BaseModel):
    """An upload of a job's files to the hub."""

    model_config = ConfigDict(json_schema_extra={"examples": [PUBLICATION_EXAMPLE]})

    id: str
    object: Literal["publication"] = "publication"
    job_id: str
    repo: str
    private: bool
    state: PublicationState
    attempts: int
    commit: str | None
    error: str | None = Field(description="Of the last attempt.")
    created_at: datetime
    finished_at: datetime | None


class PublicationList(BaseModel):
    """A job's publications, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"object": "list", "data": [PUBLICATION_EXAMPLE]}]})

    object: Literal["list"] = "list"
    data: list[PublicationView]
