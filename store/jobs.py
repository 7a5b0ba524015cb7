"""What a job is and how its state may change: plain values, no SQL.

Each state's docstring says how a job gets in, who takes it out, and what happens if that process dies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from store.workers import Needs, Obstacle


class JobState(StrEnum):
    """The states of a job."""

    QUEUED = "queued"
    """In: submit, retry, drain, lost lease. Out: a claim, a cancel, its deadline. No process owns it: none can die."""
    RUNNING = "running"
    """In: a claim. Out: the claiming supervisor under its lease token. If it dies, the sweeper requeues on expiry."""
    CANCELLING = "cancelling"
    """In: a cancel while running. Out: the supervisor, once its child is reaped. If it dies, the sweeper cancels."""
    SUCCEEDED = "succeeded"
    """In: the fenced publish, artifacts and state in one transaction. Final."""
    FAILED = "failed"
    """In: a fatal error, spent attempts, the deadline. Out: only a user's retry."""
    CANCELLED = "cancelled"
    """In: a cancel, at once from queued or by way of cancelling. Out: only a user's retry."""

    @property
    def terminal(self) -> bool:
        """Whether nothing happens to the job any more by itself."""
        return self in TERMINAL_STATES


TERMINAL_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
HELD_STATES = frozenset({JobState.RUNNING, JobState.CANCELLING})  # a worker holds a lease

TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.FAILED}),
    JobState.RUNNING: frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLING, JobState.QUEUED}),
    JobState.CANCELLING: frozenset({JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset({JobState.QUEUED}),
    JobState.CANCELLED: frozenset({JobState.QUEUED}),
}


class Stage(StrEnum):
    """What a running job is doing."""

    PREFLIGHT = "preflight"
    DOWNLOADING = "downloading"
    CALIBRATING = "calibrating"
    QUANTIZING = "quantizing"
    PACKING = "packing"
    EVALUATING = "evaluating"
    UPLOADING = "uploading"
    PUBLISHING = "publishing"


class EventKind(StrEnum):
    """The events that the store itself writes, one per transition; their payload carries the new `state`.

    A worker adds kinds of its own beside them (`Repository.add_event`).
    """

    SUBMITTED = "submitted"
    CLAIMED = "claimed"
    CANCEL_REQUESTED = "cancel_requested"
    RELEASED = "released"
    """Back to queued by its worker: drain, or a failure that may be tried again."""
    LEASE_LOST = "lease_lost"
    """Taken from a silent worker by the sweeper; the state says where it went."""
    RETRIED = "retried"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ARTIFACTS_EXPIRING = "artifacts_expiring"
    """The job's files go soon; the payload says when. No transition."""
    ARTIFACTS_EXPIRED = "artifacts_expired"
    """The job's files are gone. No transition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    """Why an attempt or a job ended badly, in words that a user can act on."""

    code: str
    message: str
    retryable: bool
    hint: str = ""
    stage: str | None = None
    block: int | None = None
    linear: str | None = None
    attempt: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """fraction: 0 to 1, monotone within an attempt. rss_bytes: of the child.

    eta_at: absolute, of the job's end, while downloading of the model's arrival; None while unknown.
    """

    fraction: float = 0.0
    blocks_done: int = 0
    blocks_total: int = 0
    eta_at: datetime | None = None
    rss_bytes: int | None = None
    last_linear: str | None = None
    last_loss: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """What a submit stores. spec: the validated request (model, config, calibration, formats, targets), plain JSON.

    calibration_set_id names the stored set whose text is used, uploaded_model_id the model, where it is an upload.
    idempotency_key is unique per owner.
    request_sha256 is the hash of the canonical request, compared when an idempotency key comes again.
    deadline_seconds: from the submit, and again from a user's retry, to the time at which the job fails.
    """

    owner_key_id: str
    spec: Mapping[str, Any]
    calibration_set_id: str | None
    uploaded_model_id: str | None = None
    queue_class: str = "default"
    needs: Needs = field(default_factory=Needs)
    priority: int = 0
    max_attempts: int = 3
    deadline_seconds: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    request_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row of `jobs`, as read. Times are aware UTC. version grows by one with every change (ETag).

    attempt numbers every claim and never falls; failures counts what the retry budget counts.
    resolved: what the worker found out (model_sha, calibration_sha256, engine, fingerprint).
    evaluation: measured quality. lease_expires_at and worker_id are set while a worker holds the job, else None.
    expires_at: when its files go, unless they are pinned. expiry_warned_at: when its history told of that.
    deadline_at: when it fails unless it is over by then.
    """

    id: str
    owner_key_id: str
    state: JobState
    stage: Stage | None
    spec: Mapping[str, Any]
    resolved: Mapping[str, Any]
    evaluation: Mapping[str, Any] | None
    calibration_set_id: str | None
    queue_class: str
    needs: Needs
    priority: int
    labels: Mapping[str, str]
    attempt: int
    failures: int
    max_attempts: int
    deadline_seconds: int | None
    deadline_at: datetime | None
    lease_token: int
    lease_expires_at: datetime | None
    worker_id: str | None
    progress: JobProgress
    error: JobError | None
    warnings: tuple[Mapping[str, Any], ...]
    version: int
    created_at: datetime
    updated_at: datetime
    available_at: datetime
    started_at: datetime | None
    heartbeat_at: datetime | None
    finished_at: datetime | None
    pinned: bool
    expires_at: datetime | None
    expiry_warned_at: datetime | None


DEADLINE_EXCEEDED = "deadline_exceeded"


def deadline_exceeded(job: Job, stage: Stage | None = None) -> JobError:
    """Returns the error of a job whose deadline came first. stage: what a worker was doing; None: it waited."""
    return JobError(
        code=DEADLINE_EXCEEDED,
        message=f"The job was not over {job.deadline_seconds} seconds after it was submitted or retried.",
        hint="A retry starts a new deadline of the same length; submit it with a later one if it needs more time.",
        retryable=False,
        stage=stage,
        attempt=job.attempt or None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs a list shows; None and empty mean any. states: one of them. model: as `model_name` spells it.

    labels: (key, value) pairs, all of them. created_after, created_before: both excluded.
    """

    states: tuple[JobState, ...] = ()
    method: str | None = None
    model: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    created_after: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePosition:
    """Where a job stands. position: 1 is claimed next, None once it is not queued. waiting: all claimable of its class.

    workers, free_slots: of those that could take it. obstacle: why there is none.

    A job that waits for its retry delay is counted behind those that would be claimed before it, and not in `waiting`.
    """

    job: Job
    position: int | None
    waiting: int
    workers: int = 0
    free_slots: int = 0
    obstacle: Obstacle | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """The place after one job in a list of newest first."""

    created_at: datetime
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCell:
    """One job of a batch to be stored, with the places of its model and config in the request."""

    model_index: int
    config_index: int
    job: NewJob


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch:
    """Jobs that are submitted together. idempotency_key and request_sha256: as a NewJob's, for the batch as a whole."""

    owner_key_id: str
    name: str
    cells: tuple[BatchCell, ...]
    idempotency_key: str | None = None
    request_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSummary:
    """A batch in a list. states: how many of its jobs that still exist are in each."""

    id: str
    name: str
    created_at: datetime
    states: Mapping[JobState, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchMember:
    """A job of a batch. artifact_bytes: of all its files, None before the end. mean_relative_loss: over the linears
    that are solved so far and have one.
    """

    job: Job
    model_index: int
    config_index: int
    artifact_bytes: int | None
    mean_relative_loss: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Jobs that were submitted together, by model and config; deleted ones are missing."""

    id: str
    owner_key_id: str
    name: str
    created_at: datetime
    members: tuple[BatchMember, ...]


NAMED_BY = {"hub": "repo", "path": "path", "upload": "name"}
"""By source, the field of a spec's model that users know it by."""


def model_name(spec: Mapping[str, Any]) -> str:
    """Returns what a list is filtered by: the hub name, the upload's name, or the local path as it was submitted.

    A source that this version does not know, since a newer one stored the job, goes by its kind.
    """
    model = spec["model"]
    field = NAMED_BY.get(model["source"])
    return str(model["source"] if field is None else model[field])


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearRow:
    """What is known of one solved linear; as read, `attempt` is the attempt that solved it (0 in a row to be written).

    loss: tr((W-Ŵ)H(W-Ŵ)ᵀ); relative_loss: loss / tr(W H Wᵀ); tokens: calibration tokens that reached it.
    """

    block: int
    linear: str
    bits: int
    group_size: int
    loss: float | None
    relative_loss: float | None
    tokens: int
    damp_percent: float | None
    seconds: float
    warnings: tuple[str, ...] = ()
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """One line of a job's history; `seq` is gap-free per job and starts at 1."""

    job_id: str
    seq: int
    kind: str
    at: datetime
    attempt: int
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line of an attempt's log; number counts from 1 within the attempt, and a gap tells of dropped lines.

    level: info, warning or error. source: worker (the supervisor) or child (what the engine's process printed).
    attempt: as read; 0 in a line to be written.
    """

    number: int
    at: datetime
    level: str
    source: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class StreamPlace:
    """A place among the events of all jobs. Places are ordered as events are; of their parts only the order counts."""

    position: int
    job_id: str
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedEvent:
    """An event with whose job it is, and its own place: reading on from there gives what comes behind it."""

    event: JobEvent
    owner_key_id: str
    place: StreamPlace


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPage:
    """Events in order. place: where to read on; nothing that was asked for lies between the last event and it."""

    events: tuple[StreamedEvent, ...]
    place: StreamPlace


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One claim of a job, from start to end.

    outcome: succeeded, failed (also where the job is tried again), cancelled, released, lease_lost, or None while open.
    """

    job_id: str
    number: int
    worker_id: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None
    error: JobError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A finished block of a job under way, in the object store under its sha256.

    fingerprint: of the run that solved it. record: what its work folder says of it, as plain JSON.
    """

    block: int
    fingerprint: str
    sha256: str
    size_bytes: int
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewArtifact:
    """A file of a finished job, already in the object store under its sha256. name: path relative to the artifact."""

    name: str
    sha256: str
    size_bytes: int
    media_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One published file."""

    id: str
    job_id: str
    name: str
    sha256: str
    size_bytes: int
    media_type: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCalibrationSet:
    """A calibration text that is already in the object store under its sha256. format: text or jsonl."""

    owner_key_id: str
    name: str
    format: str
    sha256: str
    size_bytes: int
    documents: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSet:
    """A stored calibration text, named by its content. format: text or jsonl. The bytes lie in the object store.

    expires_at: when it goes, unless it is pinned. expiry_warned_at: when its owner was told of that.
    """

    id: str
    owner_key_id: str
    name: str
    format: str
    sha256: str
    size_bytes: int
    documents: int
    created_at: datetime
    pinned: bool
    expires_at: datetime | None
    expiry_warned_at: datetime | None
