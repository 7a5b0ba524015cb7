"""Jobs as their owners see them: submit, read, list, cancel, retry, count."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, assert_never

from sqlalchemy import ColumnElement, delete, func, insert, select, tuple_

from store.errors import IdempotencyConflictError, NotFoundError, WrongStateError
from store.ids import IdPrefix, new_id
from store.jobs import Cursor, EventKind, Job, JobFilter, JobState, NewJob, model_name
from store.repository.base import Guard, RepositoryBase, insert_into, owned
from store.repository.clock import database_time
from store.repository.queue import claimable
from store.repository.rows import job_from_row
from store.tables import job_labels, jobs, uploaded_models
from store.workers import Capability

if TYPE_CHECKING:
    from sqlalchemy import Select
    from sqlalchemy.sql.dml import ReturningInsert

RETRYABLE_STATES = frozenset({JobState.FAILED, JobState.CANCELLED})

NO_PROGRESS: dict[str, Any] = {
    "progress_fraction": 0.0,
    "blocks_done": 0,
    "blocks_total": 0,
    "eta_at": None,
    "rss_bytes": None,
    "last_linear": None,
    "last_loss": None,
}


def _deadline(seconds: int | None) -> dict[str, Any]:
    """Returns the columns of a deadline that starts to count now."""
    return {"deadline_seconds": seconds, "deadline_at": None if seconds is None else database_time(seconds)}


def _new_values(new: NewJob) -> dict[str, Any]:
    """Returns the columns of a job that nobody has touched yet, but for those of the database's clock.

    They are parameters of one statement rather than parts of it, so that it is put together once and not per job.
    """
    submitted = {
        "owner_key_id": new.owner_key_id,
        "spec": dict(new.spec),
        "method": new.spec["quantization"]["method"],
        "model": model_name(new.spec),
        "calibration_set_id": new.calibration_set_id,
        "uploaded_model_id": new.uploaded_model_id,
        "queue_class": new.queue_class,
        "needed_device": new.needs.device,
        "needed_memory_bytes": new.needs.memory_bytes,
        "priority": new.priority,
        "labels": dict(new.labels),
        "idempotency_key": new.idempotency_key,
        "request_sha256": new.request_sha256,
        "max_attempts": new.max_attempts,
        "deadline_seconds": new.deadline_seconds,
    }
    counters = {"attempt": 0, "failures": 0, "lease_token": 0, "version": 1, "event_count": 1}
    started = {"id": new_id(IdPrefix.JOB), "state": JobState.QUEUED, "resolved": {}, "warnings": []}
    return {**started, **submitted, **counters, **NO_PROGRESS}


@cache
def _job_insert(dialect: str, *, once: bool) -> ReturningInsert[Any]:
    """Returns the INSERT of a job, put together once per process. once: it stores nothing for a key that was used."""
    statement = insert_into(jobs, dialect).values(
        dict.fromkeys(("created_at", "updated_at", "available_at"), database_time())
    )
    if once:
        statement = statement.on_conflict_do_nothing(index_elements=["owner_key_id", "idempotency_key"])
    return statement.returning(jobs)


def _conditions(job_filter: JobFilter) -> Iterator[ColumnElement[bool]]:
    if job_filter.states:
        yield jobs.c.state.in_(job_filter.states)
    if job_filter.method is not None:
        yield jobs.c.method == job_filter.method
    if job_filter.model is not None:
        yield jobs.c.model == job_filter.model
    if job_filter.created_after is not None:
        yield jobs.c.created_at > job_filter.created_after
    if job_filter.created_before is not None:
        yield jobs.c.created_at < job_filter.created_before
    for key, value in job_filter.labels:
        labelled = select(job_labels.c.job_id).where(job_labels.c.key == key, job_labels.c.value == value)
        yield jobs.c.id.in_(labelled)


class JobPart(RepositoryBase):
    """The part of the repository that the API's job routes use."""

    def add_job(self, new: NewJob) -> tuple[Job, bool]:
        """Stores a submit and returns (job, True), or (the earlier job, False) where the idempotency key was used.

        Raises IdempotencyConflictError where that key came with another request_sha256, and KeyError where the spec
        names no model or method, NotFoundError where the uploaded model is gone.
        """
        if new.uploaded_model_id is not None:
            self._hold_uploaded_model(new.uploaded_model_id)
        statement = _job_insert(self._connection.dialect.name, once=new.idempotency_key is not None)
        if new.deadline_seconds is not None:
            statement = statement.values(deadline_at=database_time(new.deadline_seconds))
        row = self._connection.execute(statement, _new_values(new)).one_or_none()
        if row is None:
            return self._earlier_job(new), False
        if new.labels:
            labels = [{"job_id": row.id, "key": key, "value": value} for key, value in new.labels.items()]
            self._connection.execute(insert(job_labels), labels)
        self._append_event(row, EventKind.SUBMITTED, {"state": JobState.QUEUED})
        return job_from_row(row), True

    def _hold_uploaded_model(self, model_id: str) -> None:
        """Keeps a model from being deleted until the job's row, which needs it, is there."""
        held = select(uploaded_models.c.id).where(uploaded_models.c.id == model_id).with_for_update(read=True)
        if self._connection.execute(held).one_or_none() is None:
            raise NotFoundError("uploaded model", model_id)

    def _earlier_job(self, new: NewJob) -> Job:
        statement = select(jobs).where(
            jobs.c.owner_key_id == new.owner_key_id, jobs.c.idempotency_key == new.idempotency_key
        )
        row = self._connection.execute(statement).one()
        if row.request_sha256 != new.request_sha256:
            raise IdempotencyConflictError(str(new.idempotency_key))
        return job_from_row(row)

    def get_job(self, job_id: str, owner: str | None = None) -> Job:
        """Raises NotFoundError where there is no such job, or it is another owner's."""
        return job_from_row(self._job_row(job_id, owner))

    def job_version(self, job_id: str, owner: str | None = None) -> tuple[int, JobState]:
        """Returns a job's version and state alone, which is all that most polls need; raises as `get_job` does."""
        columns: Select[Any] = select(jobs.c.version, jobs.c.state)
        row = self._connection.execute(owned(columns.where(jobs.c.id == job_id), jobs, owner)).one_or_none()
        if row is None:
            raise NotFoundError("job", job_id)
        return row.version, JobState(row.state)

    def list_jobs(
        self, owner: str | None, job_filter: JobFilter, page_size: int, after: Cursor | None = None
    ) -> tuple[Job, ...]:
        """Returns up to page_size jobs, newest first, that come behind `after` (the last job of the page before)."""
        statement = owned(select(jobs), jobs, owner).where(*_conditions(job_filter))
        if after is not None:
            place = tuple_(after.created_at, after.id, types=[jobs.c.created_at.type, jobs.c.id.type])
            statement = statement.where(tuple_(jobs.c.created_at, jobs.c.id) < place)
        statement = statement.order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(page_size)
        return tuple(job_from_row(row) for row in self._connection.execute(statement))

    def request_cancel(self, job_id: str, owner: str | None = None) -> Job:
        """Cancels a queued job at once and asks a running one to stop; nothing changes where that was done before.

        Raises NotFoundError, or WrongStateError for a job that succeeded or failed.
        """
        job = job_from_row(self._job_row(job_id, owner, lock=True))
        match job.state:
            case JobState.CANCELLING | JobState.CANCELLED:
                return job
            case JobState.SUCCEEDED | JobState.FAILED:
                raise WrongStateError(job_id, job.state, "cancelled")
            case JobState.QUEUED:
                return self._user_transition(job, JobState.CANCELLED, EventKind.CANCELLED, {})
            case JobState.RUNNING:
                return self._user_transition(job, JobState.CANCELLING, EventKind.CANCEL_REQUESTED, {})
            case _:
                assert_never(job.state)

    def retry(self, job_id: str, owner: str | None = None) -> Job:
        """Queues a failed or cancelled job again with a fresh retry budget and deadline; a queued one stays as it is.

        Raises NotFoundError, or WrongStateError for a job that runs or has succeeded.
        """
        job = job_from_row(self._job_row(job_id, owner, lock=True))
        if job.state is JobState.QUEUED:
            return job
        if job.state not in RETRYABLE_STATES:
            raise WrongStateError(job_id, job.state, "retried")
        fresh = {"failures": 0, "error": None, "available_at": database_time(), **_deadline(job.deadline_seconds)}
        values = {**fresh, "started_at": None, "heartbeat_at": None, **NO_PROGRESS}
        return self._user_transition(job, JobState.QUEUED, EventKind.RETRIED, values)

    def delete_job(self, job_id: str, owner: str | None = None) -> None:
        """Removes a finished job with its history and artifact rows; the sweep frees the bytes that were only its own.

        Raises NotFoundError, or WrongStateError for a job that waits or runs.
        """
        job = job_from_row(self._job_row(job_id, owner, lock=True))
        if not job.state.terminal:
            raise WrongStateError(job_id, job.state, "deleted")
        self._connection.execute(delete(jobs).where(jobs.c.id == job_id))

    def _user_transition(self, job: Job, state: JobState, kind: EventKind, values: dict[str, Any]) -> Job:
        """Moves a job whose row this transaction has locked, so that the guard can only hold."""
        changed = self._transition(Guard(job.id, frozenset({job.state})), state, kind, values)
        if changed is None:
            raise WrongStateError(job.id, job.state, state)
        return changed

    def queued_counts(self, capability: Capability | None = None) -> dict[str, int]:
        """Returns {queue class: jobs that a worker could claim now}; classes with none are left out.

        capability: of the worker that asks; None: of any.
        """
        statement = select(jobs.c.queue_class, func.count()).where(claimable(capability)).group_by(jobs.c.queue_class)
        return {str(row[0]): int(row[1]) for row in self._connection.execute(statement)}

    def state_counts(self) -> dict[JobState, int]:
        """Returns {state: number of jobs}, zeros included."""
        statement = select(jobs.c.state, func.count()).group_by(jobs.c.state)
        found = {JobState(state): count for state, count in self._connection.execute(statement)}
        return {state: found.get(state, 0) for state in JobState}
