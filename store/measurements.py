"""What an operator watches of an installation: counts and ages that the database knows. Plain values, no SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from store.jobs import JobState
from store.webhooks import DeliveryState
from store.workers import Worker

FAILURE_SECONDS = 3600.0
"""How far back failures are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """One look at all jobs and workers.

    states: jobs by state, zeros included. queued: jobs that a worker could claim now, by queue class; waiting_seconds:
    how long the oldest of them has waited. overdue_leases: jobs whose worker fell silent and that no sweep has taken
    back yet. failures: jobs that failed within FAILURE_SECONDS, by error code. artifact_bytes: size of all published
    files, each job's counted. calibration_bytes, model_bytes: of what was uploaded, each owner's counted.
    """

    states: Mapping[JobState, int]
    queued: Mapping[str, int]
    waiting_seconds: Mapping[str, float]
    overdue_leases: int
    failures: Mapping[str, int]
    workers: Sequence[Worker]
    deliveries: Mapping[DeliveryState, int]
    artifact_bytes: int
    calibration_bytes: int
    model_bytes: int
