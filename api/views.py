"""Turns the store's values into what the API says. Model folders are shown as root name and path inside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from api.schemas.budget import BudgetView
from api.schemas.evaluation import EvaluationView
from api.schemas.files import ArtifactView, CalibrationSetView, ModelFileView, UploadedModelView
from api.schemas.jobs import (
    AttemptView,
    EstimateView,
    EventView,
    JobErrorView,
    JobLinks,
    JobProgressView,
    JobView,
    LinearView,
    LogLineView,
    NeedsView,
    ProgressView,
    StreamedEventView,
)
from core.calibration.texts import TextFacts
from core.preflight.resources import Estimate
from store.jobs import Artifact, Attempt, CalibrationSet, Job, JobError, JobEvent, LinearRow, LogLine
from store.models import ModelFile, UploadedModel

BUDGET_PLAN = "budget_plan"
"""The key of a job's `resolved` that has a view of its own: it is much larger than the rest."""


def job_path(job_id: str) -> str:
    """Returns the path of a job."""
    return f"/v1/jobs/{job_id}"


def batch_path(batch_id: str) -> str:
    """Returns the path of a batch."""
    return f"/v1/batches/{batch_id}"


def estimate_view(needed: Estimate | None) -> EstimateView | None:
    """Returns what a run needs; None where it is not known before the model is there."""
    if needed is None:
        return None
    return EstimateView(
        ram_bytes=needed.ram_bytes,
        disk_bytes=needed.disk_bytes,
        artifact_bytes=needed.artifact_bytes,
        seconds=needed.seconds,
    )


def job_view(job: Job) -> JobView:
    """Returns the whole job."""
    return JobView(
        id=job.id,
        version=job.version,
        state=job.state,
        stage=job.stage,
        spec=spec_view(job.spec),
        resolved={name: value for name, value in job.resolved.items() if name != BUDGET_PLAN},
        labels=dict(job.labels),
        queue_class=job.queue_class,
        needs=NeedsView(**asdict(job.needs)),
        priority=job.priority,
        attempt=job.attempt,
        failures=job.failures,
        max_attempts=job.max_attempts,
        deadline_s=job.deadline_seconds,
        deadline_at=job.deadline_at,
        worker=job.worker_id,
        progress=ProgressView(**asdict(job.progress)),
        error=_error_view(job.error),
        warnings=[dict(warning) for warning in job.warnings],
        evaluation=None if job.evaluation is None else EvaluationView.model_validate(job.evaluation),
        created_at=job.created_at,
        updated_at=job.updated_at,
        started_at=job.started_at,
        heartbeat_at=job.heartbeat_at,
        finished_at=job.finished_at,
        pinned=job.pinned,
        expires_at=job.expires_at,
        expiry_warned_at=job.expiry_warned_at,
        links=_links(job.id),
    )


def progress_view(job: Job) -> JobProgressView:
    """Returns the part that changes while a job runs."""
    return JobProgressView(
        **asdict(job.progress),
        id=job.id,
        version=job.version,
        state=job.state,
        stage=job.stage,
        attempt=job.attempt,
        heartbeat_at=job.heartbeat_at,
        finished_at=job.finished_at,
        error=_error_view(job.error),
    )


def spec_view(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Flattens a stored spec into the form of a request."""
    grid = {name: value for name, value in spec["quantization"].items() if name != "schema_version"}
    # Stored as pairs, which keep their order in any database.
    grid["dynamic"] = dict(grid.get("dynamic", ()))
    calibration = {} if spec["calibration"] is None else {"calibration": spec["calibration"]}
    rest = {name: value for name, value in spec.items() if name not in {"model", "quantization", "calibration"}}
    return {"model": spec["model"], **grid, **calibration, **rest}


def event_view(event: JobEvent) -> EventView:
    """Returns one line of a history."""
    return EventView(seq=event.seq, kind=event.kind, at=event.at, attempt=event.attempt, payload=dict(event.payload))


def streamed_event_view(event: JobEvent) -> StreamedEventView:
    """Returns one line of a history with its job."""
    return StreamedEventView(job_id=event.job_id, **event_view(event).model_dump())


def log_line_view(line: LogLine) -> LogLineView:
    """Returns one line of a log."""
    return LogLineView.model_validate(asdict(line))


def attempt_view(attempt: Attempt) -> AttemptView:
    """Returns one claim."""
    return AttemptView(
        number=attempt.number,
        worker=attempt.worker_id,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
        outcome=attempt.outcome,
        error=_error_view(attempt.error),
    )


def linear_view(row: LinearRow) -> LinearView:
    """Returns one solved linear."""
    return LinearView(**{**asdict(row), "warnings": list(row.warnings)})


def budget_view(plan: Mapping[str, Any]) -> BudgetView:
    """Returns a stored plan."""
    return BudgetView.model_validate({name: plan[name] for name in BudgetView.model_fields if name in plan})


def artifact_view(artifact: Artifact) -> ArtifactView:
    """Returns one file."""
    return ArtifactView(
        id=artifact.id,
        name=artifact.name,
        sha256=artifact.sha256,
        size_bytes=artifact.size_bytes,
        media_type=artifact.media_type,
        created_at=artifact.created_at,
        content=f"{job_path(artifact.job_id)}/artifacts/{artifact.id}/content",
    )


def calibration_set_view(stored: CalibrationSet, facts: TextFacts | None = None) -> CalibrationSetView:
    """Returns one stored text, with what a look over it found where somebody looked."""
    return CalibrationSetView(
        id=stored.id,
        name=stored.name,
        format=stored.format,
        sha256=stored.sha256,
        size_bytes=stored.size_bytes,
        documents=stored.documents,
        created_at=stored.created_at,
        conversations=None if facts is None else facts.conversations,
        characters=None if facts is None else facts.characters,
        estimated_tokens=None if facts is None else facts.estimated_tokens,
        warnings=[] if facts is None else list(facts.warnings),
        pinned=stored.pinned,
        expires_at=stored.expires_at,
        expiry_warned_at=stored.expiry_warned_at,
    )


def uploaded_model_view(stored: UploadedModel, files: Sequence[ModelFile] | None = None) -> UploadedModelView:
    """Returns one stored model, with its files where they were read."""
    contents = None if files is None else [ModelFileView(**asdict(file)) for file in files]
    facts = {name: value for name, value in asdict(stored).items() if name != "owner_key_id"}
    return UploadedModelView(**facts, contents=contents)


def _error_view(error: JobError | None) -> JobErrorView | None:
    return None if error is None else JobErrorView(**asdict(error))


def _links(job_id: str) -> JobLinks:
    base = job_path(job_id)
    return JobLinks(
        self=base,
        progress=f"{base}/progress",
        queue_position=f"{base}/queue-position",
        events=f"{base}/events",
        events_stream=f"{base}/events/stream",
        logs=f"{base}/logs",
        linears=f"{base}/linears",
        artifacts=f"{base}/artifacts",
        archive=f"{base}/archive.zip",
        checksums=f"{base}/SHA256SUMS",
    )
