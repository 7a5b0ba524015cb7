"""Turns table rows into the frozen values of `store.jobs`, and their parts into column values."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from store.jobs import (
    Artifact,
    Attempt,
    CalibrationSet,
    Job,
    JobError,
    JobEvent,
    JobProgress,
    JobState,
    LinearRow,
    Stage,
)
from store.keys import ApiKey, Quotas
from store.workers import Needs

if TYPE_CHECKING:
    from sqlalchemy import Row


QUOTAS = [quota.name for quota in fields(Quotas)]


def error_to_document(error: JobError | None) -> dict[str, Any] | None:
    """Returns what the `error` columns hold."""
    return None if error is None else asdict(error)


def error_from_document(document: dict[str, Any] | None) -> JobError | None:
    """Reads what `error_to_document` wrote."""
    return None if document is None else JobError(**document)


def progress_from_row(row: Row[Any]) -> JobProgress:
    """Reads the progress columns of a `jobs` row."""
    return JobProgress(
        # SQLite returns a whole number from RETURNING before it has stored it as a real one.
        fraction=float(row.progress_fraction),
        blocks_done=row.blocks_done,
        blocks_total=row.blocks_total,
        eta_at=row.eta_at,
        rss_bytes=row.rss_bytes,
        last_linear=row.last_linear,
        last_loss=row.last_loss,
    )


def job_from_row(row: Row[Any]) -> Job:
    """Reads a whole `jobs` row."""
    return Job(
        id=row.id,
        owner_key_id=row.owner_key_id,
        state=JobState(row.state),
        stage=None if row.stage is None else Stage(row.stage),
        spec=row.spec,
        resolved=row.resolved,
        evaluation=row.evaluation,
        calibration_set_id=row.calibration_set_id,
        queue_class=row.queue_class,
        needs=Needs(device=row.needed_device, memory_bytes=row.needed_memory_bytes),
        priority=row.priority,
        labels=row.labels,
        attempt=row.attempt,
        failures=row.failures,
        max_attempts=row.max_attempts,
        deadline_seconds=row.deadline_seconds,
        deadline_at=row.deadline_at,
        lease_token=row.lease_token,
        lease_expires_at=row.lease_expires_at,
        worker_id=row.worker_id,
        progress=progress_from_row(row),
        error=error_from_document(row.error),
        warnings=tuple(row.warnings),
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
        available_at=row.available_at,
        started_at=row.started_at,
        heartbeat_at=row.heartbeat_at,
        finished_at=row.finished_at,
        pinned=row.pinned,
        expires_at=row.expires_at,
        expiry_warned_at=row.expiry_warned_at,
    )


def event_from_row(row: Row[Any]) -> JobEvent:
    """Reads an `events` row."""
    return JobEvent(job_id=row.job_id, seq=row.seq, kind=row.kind, at=row.at, attempt=row.attempt, payload=row.payload)


def attempt_from_row(row: Row[Any]) -> Attempt:
    """Reads an `attempts` row."""
    return Attempt(
        job_id=row.job_id,
        number=row.number,
        worker_id=row.worker_id,
        started_at=row.started_at,
        ended_at=row.ended_at,
        outcome=row.outcome,
        error=error_from_document(row.error),
    )


def linear_from_row(row: Row[Any]) -> LinearRow:
    """Reads a `linears` row."""
    return LinearRow(
        block=row.block,
        linear=row.linear,
        bits=row.bits,
        group_size=row.group_size,
        loss=row.loss,
        relative_loss=row.relative_loss,
        tokens=row.tokens,
        damp_percent=row.damp_percent,
        seconds=row.seconds,
        warnings=tuple(row.warnings),
        attempt=row.attempt,
    )


def artifact_from_row(row: Row[Any]) -> Artifact:
    """Reads an `artifacts` row."""
    return Artifact(
        id=row.id,
        job_id=row.job_id,
        name=row.name,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        media_type=row.media_type,
        created_at=row.created_at,
    )


def calibration_set_from_row(row: Row[Any]) -> CalibrationSet:
    """Reads a `calibration_sets` row."""
    return CalibrationSet(
        id=row.id,
        owner_key_id=row.owner_key_id,
        name=row.name,
        format=row.format,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        documents=row.documents,
        created_at=row.created_at,
        pinned=row.pinned,
        expires_at=row.expires_at,
        expiry_warned_at=row.expiry_warned_at,
    )


def api_key_from_row(row: Row[Any]) -> ApiKey:
    """Reads an `api_keys` row."""
    return ApiKey(
        id=row.id,
        name=row.name,
        secret_sha256=row.secret_sha256,
        scopes=frozenset(row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        quotas=Quotas(**{name: getattr(row, f"max_{name}") for name in QUOTAS}),
    )
