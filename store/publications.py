"""Artifacts on their way to a repository of the model hub: plain values, no SQL and no HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

RETRY_SECONDS = (10, 60, 600, 3_600)
"""How long after each failure that may pass the next attempt comes."""


class PublicationState(StrEnum):
    """The states of a publication."""

    PENDING = "pending"
    """In: a request, a failure that may pass. Out: a worker takes it. If that dies, another takes it again."""
    PUBLISHED = "published"
    """In: the hub made the commit. Final."""
    FAILED = "failed"
    """In: a refusal, or the last attempt failed. Final: a new request makes a new publication."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPublication:
    """owner_key_id: whose token is used. repo: owner/name on the hub, made where it is not there."""

    job_id: str
    owner_key_id: str
    repo: str
    private: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A stored publication. commit: of the hub, once it is published. error: of the last attempt."""

    id: str
    job_id: str
    owner_key_id: str
    repo: str
    private: bool
    state: PublicationState
    attempts: int
    commit: str | None
    error: str | None
    created_at: datetime
    finished_at: datetime | None
