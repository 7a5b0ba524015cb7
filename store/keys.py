"""Who may use the service, how much of it, and for how long: plain values, no SQL."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

API_SCOPES = frozenset({"jobs:read", "jobs:write", "jobs:cancel", "artifacts:read", "admin"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """What one key may take; None: no limit of its own.

    jobs_in_flight: that are neither finished nor failed. stored_bytes: of the files of its finished jobs.
    calibration_bytes: of its texts. model_bytes: of its uploaded models. requests_per_minute: over time; bursts may
    take a minute's worth at once.
    """

    jobs_in_flight: int | None = None
    stored_bytes: int | None = None
    calibration_bytes: int | None = None
    model_bytes: int | None = None
    requests_per_minute: int | None = None

    @property
    def amounts(self) -> bool:
        """Whether one of them limits what is stored or waits, which is counted when something is added."""
        limits = (self.jobs_in_flight, self.stored_bytes, self.calibration_bytes, self.model_bytes)
        return any(limit is not None for limit in limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one owner takes now, in the units of Quotas."""

    jobs_in_flight: int
    stored_bytes: int
    calibration_bytes: int
    model_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A bearer key as stored: only the hash of its secret. scopes: some of API_SCOPES."""

    id: str
    name: str
    secret_sha256: str
    scopes: frozenset[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    quotas: Quotas = field(default_factory=Quotas)
