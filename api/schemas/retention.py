"""What the API reads and says about how long things are kept, and about an owner's hub token."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.schemas.options import Strict
from api.schemas.times import Moment


class KeepChanges(Strict):
    """What is left out stays as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"pinned": True}]})

    pinned: bool = Field(default=False, description="Kept whatever the time says.")
    expires_at: Moment | None = Field(
        default=None, description="When it goes; null: by the service's rule, if it has one."
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
