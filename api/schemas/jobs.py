"""What the API says about a job: the job itself, its progress, its history, its linears."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.evaluation import EvaluationView
from api.schemas.job_examples import (
    ATTEMPT_EXAMPLE,
    ERROR_EXAMPLE,
    EVENT_EXAMPLE,
    JOB_EXAMPLE,
    LINEAR_EXAMPLE,
    LOG_LINE_EXAMPLE,
    PREFLIGHT_EXAMPLE,
    PROGRESS_EXAMPLE,
    QUEUE_POSITION_EXAMPLE,
)
from store.jobs import JobState, Stage
from store.workers import ObstacleCode


class ProgressView(BaseModel):
    """How far the current attempt is. Times are absolute, so that a body stays true while nothing changes."""

    fraction: float = Field(ge=0, le=1, description="Monotone within an attempt.")
    blocks_done: int
    blocks_total: int
    eta_at: datetime | None = Field(
        description="When the job should be done, while `downloading` the model should be there; null while unknown."
    )
    rss_bytes: int | None = Field(description="Resident memory of the process that works on it.")
    last_linear: str | None
    last_loss: float | None = Field(description="tr((W-Ŵ)H(W-Ŵ)ᵀ) of the last linear.")


class JobErrorView(BaseModel):
    """Why the job or its last attempt ended badly."""

    model_config = ConfigDict(json_schema_extra={"examples": [ERROR_EXAMPLE]})

    code: str
    message: str
    hint: str
    retryable: bool
    stage: str | None
    block: int | None
    linear: str | None
    attempt: int | None


class JobLinks(BaseModel):
    """Where the job's parts are."""

    self: str
    progress: str
    queue_position: str
    events: str
    events_stream: str
    logs: str
    linears: str
    artifacts: str
    archive: str
    checksums: str


class NeedsView(BaseModel):
    """What a worker must have to take the job; null: anything will do."""

    device: str | None
    memory_bytes: int | None


class JobView(BaseModel):
    """One job. `spec` is a valid request again: post it to run the same job once more."""

    model_config = ConfigDict(json_schema_extra={"examples": [JOB_EXAMPLE]})

    id: str
    object: Literal["job"] = "job"
    version: int = Field(description="Grows with every change; the ETag is made of it.")
    state: JobState
    stage: Stage | None
    spec: dict[str, Any]
    resolved: dict[str, Any] = Field(description="What the worker found out: hashes, engine version, fingerprint.")
    labels: dict[str, str]
    queue_class: str
    needs: NeedsView
    priority: int
    attempt: int = Field(description="Numbers every claim and never falls.")
    failures: int = Field(description="What the retry budget counts.")
    max_attempts: int
    deadline_s: int | None
    deadline_at: datetime | None = Field(description="When it fails unless it is over by then; null: no deadline.")
    worker: str | None
    progress: ProgressView
    error: JobErrorView | None
    warnings: list[dict[str, Any]]
    evaluation: EvaluationView | None = Field(description="Null until it is measured, or where it was not asked for.")
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    heartbeat_at: datetime | None
    finished_at: datetime | None
    pinned: bool = Field(description="Its files stay whatever `expires_at` says.")
    expires_at: datetime | None = Field(description="When its files go; the history tells of it before.")
    expiry_warned_at: datetime | None = Field(
        description="When the history told of it; null again once it is pinned or has another time."
    )
    links: JobLinks


class JobProgressView(ProgressView):
    """The small answer for pollers."""

    model_config = ConfigDict(json_schema_extra={"examples": [PROGRESS_EXAMPLE]})

    id: str
    object: Literal["job_progress"] = "job_progress"
    version: int
    state: JobState
    stage: Stage | None
    attempt: int
    heartbeat_at: datetime | None
    finished_at: datetime | None
    error: JobErrorView | None


class ObstacleView(BaseModel):
    """Why a job waits in vain until something changes."""

    code: ObstacleCode
    message: str


class QueuePositionView(BaseModel):
    """Where a job stands in the queue. It has no version: other jobs change it."""

    model_config = ConfigDict(json_schema_extra={"examples": [QUEUE_POSITION_EXAMPLE]})

    object: Literal["queue_position"] = "queue_position"
    id: str
    state: JobState
    position: int | None = Field(description="1: claimed next. Null once the job is no longer queued.")
    waiting: int = Field(description="Jobs of its queue class that a worker could claim now.")
    workers: int = Field(description="Live workers that could take it; 0 once it is not queued.")
    free_slots: int = Field(description="How many more jobs these could run now.")
    obstacle: ObstacleView | None = Field(description="Why no live worker could take it; null while one could.")
    available_at: datetime | None = Field(description="Not claimed before this; a retry waits a while.")


class JobList(BaseModel):
    """A page of jobs, newest first."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"object": "list", "data": [JOB_EXAMPLE], "next_page_token": None}]}
    )

    object: Literal["list"] = "list"
    data: list[JobView]
    next_page_token: str | None = Field(description="Null on the last page.")


class EventView(BaseModel):
    """One line of the job's history."""

    model_config = ConfigDict(json_schema_extra={"examples": [EVENT_EXAMPLE]})

    seq: int = Field(description="Gap-free within a job, from 1.")
    kind: str
    at: datetime
    attempt: int
    payload: dict[str, Any]


class StreamedEventView(EventView):
    """The data of an `event` of a stream: with the job that it belongs to."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**EVENT_EXAMPLE, "job_id": JOB_EXAMPLE["id"]}]})

    job_id: str


class EventList(BaseModel):
    """Events after a sequence number, oldest first."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"object": "list", "data": [EVENT_EXAMPLE], "next_after": 9}]}
    )

    object: Literal["list"] = "list"
    data: list[EventView]
    next_after: int = Field(description="Give it as `after` to read on; also where nothing new is there yet.")


class LogLineView(BaseModel):
    """One line of an attempt's log."""

    model_config = ConfigDict(json_schema_extra={"examples": [LOG_LINE_EXAMPLE]})

    attempt: int
    number: int = Field(description="From 1 within the attempt; a gap tells of lines that were dropped.")
    at: datetime
    level: Literal["info", "warning", "error"]
    source: Literal["worker", "child"] = Field(description="The supervisor, or the engine's process.")
    text: str
    fields: dict[str, Any]


class LogList(BaseModel):
    """The newest lines, oldest of them first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"object": "list", "data": [LOG_LINE_EXAMPLE]}]})

    object: Literal["list"] = "list"
    data: list[LogLineView]


class AttemptView(BaseModel):
    """One claim of the job by a worker."""

    model_config = ConfigDict(json_schema_extra={"examples": [ATTEMPT_EXAMPLE]})

    number: int
    worker: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None
    error: JobErrorView | None


class AttemptList(BaseModel):
    """All attempts, oldest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"object": "list", "data": [ATTEMPT_EXAMPLE]}]})

    object: Literal["list"] = "list"
    data: list[AttemptView]


class LinearView(BaseModel):
    """One solved linear. loss and relative_loss are null where no Hessian was used."""

    model_config = ConfigDict(json_schema_extra={"examples": [LINEAR_EXAMPLE]})

    block: int
    linear: str
    bits: int
    group_size: int
    loss: float | None
    relative_loss: float | None
    tokens: int
    damp_percent: float | None
    seconds: float
    warnings: list[str]
    attempt: int


class LinearList(BaseModel):
    """Linears in the order of the model."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"object": "list", "data": [LINEAR_EXAMPLE], "next_page_token": None}]}
    )

    object: Literal["list"] = "list"
    data: list[LinearView]
    next_page_token: str | None = Field(description="Null on the last page.")


class EstimateView(BaseModel):
    """From shapes alone, not measured: upper bounds of memory and disk, and about how long the quantization takes.

    seconds: for the processor of the service's machine with nothing else to do, without evaluation and download; null
    until a run there has measured it.
    """

    ram_bytes: int
    disk_bytes: int
    artifact_bytes: int
    seconds: float | None


class PreflightView(BaseModel):
    """What a submit would store. estimate is null for a hub model: its shapes are known once it is fetched."""

    model_config = ConfigDict(json_schema_extra={"examples": [PREFLIGHT_EXAMPLE]})

    object: Literal["preflight"] = "preflight"
    spec: dict[str, Any]
    warnings: list[str]
    estimate: EstimateView | None
