"""Jobs as workers see them: claim, renew, finish, give back, and the sweep of leases that ran out.

Every write carries the lease token of the claim; a token that is no longer the row's changes nothing.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, case, func, insert, select, update

from store.errors import LeaseLostError, WrongStateError
from store.ids import IdPrefix, new_id
from store.jobs import (
    HELD_STATES,
    EventKind,
    Job,
    JobError,
    JobEvent,
    JobProgress,
    JobState,
    LinearRow,
    NewArtifact,
    Stage,
)
from store.repository.base import Guard, RepositoryBase
from store.repository.clock import database_time
from store.repository.jobs import NO_PROGRESS
from store.repository.rows import error_to_document, job_from_row
from store.tables import artifacts, attempts, jobs, linears

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Row, Select

LEASE_SECONDS = 60
RESCUE_BATCH = 100
_RESERVED_KINDS = frozenset(EventKind)


def _best_candidate(queue_class: str) -> Select[str]:
    """The eligible job of the highest priority; among equals the owner with fewest held jobs, then the oldest."""
    busy = (
        select(jobs.c.owner_key_id, func.count().label("held"))
        .where(jobs.c.lease_expires_at.is_not(None))
        .group_by(jobs.c.owner_key_id)
        .subquery("busy")
    )
    return (
        select(jobs.c.id)
        .select_from(jobs.outerjoin(busy, busy.c.owner_key_id == jobs.c.owner_key_id))
        .where(
            jobs.c.state == JobState.QUEUED,
            jobs.c.queue_class == queue_class,
            jobs.c.available_at <= database_time(),
        )
        .order_by(jobs.c.priority.desc(), func.coalesce(busy.c.held, 0), jobs.c.created_at, jobs.c.id)
        .limit(1)
        # Two workers never wait for one row; SQLite has one writer at a time and ignores this.
        .with_for_update(of=jobs, skip_locked=True)
    )


def _larger(column: Any, value: float) -> Any:  # noqa: ANN401 - SQL expressions of any number type
    return case((column < value, value), else_=column)


class LeasePart(RepositoryBase):
    """The part of the repository that supervisors and the sweeper use."""

    def claim(self, worker_id: str, queue_class: str, lease_seconds: float = LEASE_SECONDS) -> Job | None:
        """Takes the best eligible job of a class, or returns None where there is none."""
        job_id = self._connection.execute(_best_candidate(queue_class)).scalar_one_or_none()
        if job_id is None:
            return None
        values = {
            "attempt": jobs.c.attempt + 1,
            "lease_token": jobs.c.lease_token + 1,
            "lease_expires_at": database_time(lease_seconds),
            "worker_id": worker_id,
            "stage": Stage.PREFLIGHT,
            "started_at": func.coalesce(jobs.c.started_at, database_time()),
            "heartbeat_at": database_time(),
            **NO_PROGRESS,
        }
        guard = Guard(job_id, frozenset({JobState.QUEUED}))
        job = self._transition(guard, JobState.RUNNING, EventKind.CLAIMED, values, worker_id=worker_id)
        if job is not None:
            opened = {"job_id": job.id, "number": job.attempt, "worker_id": worker_id, "started_at": database_time()}
            self._connection.execute(insert(attempts).values(opened))
        return job

    def heartbeat(
        self,
        job_id: str,
        lease_token: int,
        *,
        stage: Stage,
        progress: JobProgress,
        lease_seconds: float = LEASE_SECONDS,
    ) -> Job:
        """Renews the lease and stores progress; the returned state tells a supervisor that a cancel was asked for.

        The stored fraction and block count never fall within an attempt. Raises LeaseLostError.
        """
        values = {
            "stage": stage,
            "lease_expires_at": database_time(lease_seconds),
            "heartbeat_at": database_time(),
            "progress_fraction": _larger(jobs.c.progress_fraction, min(max(progress.fraction, 0.0), 1.0)),
            "blocks_done": _larger(jobs.c.blocks_done, progress.blocks_done),
            "blocks_total": _larger(jobs.c.blocks_total, progress.blocks_total),
            "eta_at": progress.eta_at,
            "rss_bytes": progress.rss_bytes,
            "last_linear": progress.last_linear,
            "last_loss": progress.last_loss,
        }
        return job_from_row(self._write(job_id, lease_token, values))

    def set_resolved(self, job_id: str, lease_token: int, resolved: Mapping[str, Any]) -> Job:
        """Replaces what the worker found out about the job's inputs. Raises LeaseLostError."""
        return job_from_row(self._write(job_id, lease_token, {"resolved": dict(resolved)}))

    def _write(self, job_id: str, lease_token: int, values: Mapping[str, Any]) -> Row[Any]:
        """Writes under the lease in one UPDATE; raises LeaseLostError where it matched no row."""
        row = self._change(Guard(job_id, HELD_STATES, lease_token), values)
        if row is None:
            raise LeaseLostError(job_id, lease_token)
        return row

    def add_event(self, job_id: str, lease_token: int, kind: str, payload: Mapping[str, Any]) -> JobEvent:
        """Adds a worker's own event. Raises LeaseLostError, and ValueError for a kind that only transitions write."""
        if kind in _RESERVED_KINDS:
            raise ValueError(f"{kind!r} is written by transitions only")
        row = self._write(job_id, lease_token, {"event_count": jobs.c.event_count + 1})
        return self._append_event(row, kind, payload)

    def record_linears(self, job_id: str, lease_token: int, rows: Sequence[LinearRow]) -> None:
        """Stores solved linears; one that was solved again after a resume replaces its earlier row.

        Raises LeaseLostError.
        """
        attempt = self._write(job_id, lease_token, {}).attempt
        if not rows:
            return
        documents = [
            {**asdict(row), "warnings": list(row.warnings), "job_id": job_id, "attempt": attempt} for row in rows
        ]
        statement = self._insert(linears)
        replaced = {
            column.name: statement.excluded[column.name] for column in linears.columns if not column.primary_key
        }
        keys = [column.name for column in linears.primary_key]
        statement = statement.on_conflict_do_update(index_elements=keys, set_=replaced)
        self._connection.execute(statement, documents)

    def succeed(
        self,
        job_id: str,
        lease_token: int,
        files: Sequence[NewArtifact],
        evaluation: Mapping[str, Any] | None = None,
        warnings: Sequence[Mapping[str, Any]] = (),
    ) -> Job:
        """Publishes: artifact rows and the final state in one transaction.

        Raises LeaseLostError, or WrongStateError where a cancel came first: then the job is to be cancelled.
        """
        job = self._held_job(job_id, lease_token)
        if job.state is not JobState.RUNNING:
            raise WrongStateError(job_id, job.state, "published")
        values = {
            "evaluation": None if evaluation is None else dict(evaluation),
            "warnings": [dict(warning) for warning in warnings],
            "progress_fraction": 1.0,
            "eta_at": None,
        }
        published = self._leave(job, JobState.SUCCEEDED, EventKind.SUCCEEDED, "succeeded", values)
        self._add_artifacts(job_id, files)
        return published

    def _add_artifacts(self, job_id: str, files: Sequence[NewArtifact]) -> None:
        rows = [
            {
                "id": new_id(IdPrefix.ARTIFACT),
                "job_id": job_id,
                "name": file.name,
                "sha256": file.sha256,
                "size_bytes": file.size_bytes,
                "media_type": file.media_type,
                "created_at": database_time(),
            }
            for file in files
        ]
        if rows:
            self._connection.execute(insert(artifacts).values(rows))

    def fail(self, job_id: str, lease_token: int, error: JobError) -> Job:
        """Ends the job for good; where a cancel was asked for before, it ends as cancelled. Raises LeaseLostError."""
        job = self._held_job(job_id, lease_token)
        if job.state is JobState.CANCELLING:
            return self._end_cancelled(job)
        return self._end_failed(job, error, EventKind.FAILED, "failed")

    def cancelled(self, job_id: str, lease_token: int) -> Job:
        """Says that the work was stopped after a cancel. Raises LeaseLostError, WrongStateError without a cancel."""
        job = self._held_job(job_id, lease_token)
        if job.state is not JobState.CANCELLING:
            raise WrongStateError(job_id, job.state, "reported as cancelled")
        return self._end_cancelled(job)

    def release(
        self,
        job_id: str,
        lease_token: int,
        error: JobError | None = None,
        *,
        delay_seconds: float = 0.0,
        count_failure: bool = False,
    ) -> Job:
        """Gives a running job back to the queue, to be claimed again after a delay.

        With count_failure it fails for good once its failures reach max_attempts, and then an error must be given.
        Where a cancel was asked for before, it ends as cancelled. Raises LeaseLostError.
        """
        job = self._held_job(job_id, lease_token)
        if job.state is JobState.CANCELLING:
            return self._end_cancelled(job)
        outcome = "released" if error is None else "failed"
        if not count_failure:
            return self._requeue(
                job, error, EventKind.RELEASED, outcome, {"available_at": database_time(delay_seconds)}
            )
        if error is None:
            raise ValueError("A counted failure needs the error that it counts")
        if job.failures + 1 >= job.max_attempts:
            return self._end_failed(job, error, EventKind.FAILED, outcome)
        values = {"available_at": database_time(delay_seconds), "failures": job.failures + 1}
        return self._requeue(job, error, EventKind.RELEASED, outcome, values)

    def rescue_expired(self) -> tuple[str, ...]:
        """Takes jobs from workers whose lease ran out and returns their ids; at most RESCUE_BATCH a call.

        A running one is queued again with one more failure, or has failed where that was the last; one that was
        being cancelled is cancelled.
        """
        statement = (
            select(jobs)
            .where(jobs.c.lease_expires_at <= database_time())
            .order_by(jobs.c.lease_expires_at)
            .limit(RESCUE_BATCH)
            .with_for_update(skip_locked=True)
        )
        expired = [job_from_row(row) for row in self._connection.execute(statement)]
        for job in expired:
            self._rescue(job)
        return tuple(job.id for job in expired)

    def _rescue(self, job: Job) -> Job:
        if job.state is JobState.CANCELLING:
            return self._end_cancelled(job)
        error = JobError(
            code="lease_lost",
            message=f"The worker {job.worker_id} stopped reporting.",
            hint="Look at that worker's log: it was killed, ran out of memory, or lost the database.",
            retryable=True,
            stage=job.stage,
            attempt=job.attempt,
        )
        if job.failures + 1 >= job.max_attempts:
            return self._end_failed(job, error, EventKind.LEASE_LOST, "lease_lost")
        return self._requeue(job, error, EventKind.LEASE_LOST, "lease_lost", {"failures": job.failures + 1})

    def _held_job(self, job_id: str, lease_token: int) -> Job:
        """Locks and returns the job if this lease still holds it; raises LeaseLostError."""
        statement = select(jobs).where(
            jobs.c.id == job_id, jobs.c.lease_token == lease_token, jobs.c.state.in_(HELD_STATES)
        )
        row = self._connection.execute(statement.with_for_update()).one_or_none()
        if row is None:
            raise LeaseLostError(job_id, lease_token)
        return job_from_row(row)

    def _end_cancelled(self, job: Job) -> Job:
        return self._leave(job, JobState.CANCELLED, EventKind.CANCELLED, "cancelled", {"eta_at": None})

    def _end_failed(self, job: Job, error: JobError, kind: EventKind, outcome: str) -> Job:
        values = {"failures": job.failures + 1, "error": error_to_document(error), "eta_at": None}
        return self._leave(job, JobState.FAILED, kind, outcome, values, error)

    def _requeue(
        self, job: Job, error: JobError | None, kind: EventKind, outcome: str, values: Mapping[str, Any]
    ) -> Job:
        return self._leave(job, JobState.QUEUED, kind, outcome, {"eta_at": None, **values}, error)

    def _leave(
        self,
        job: Job,
        state: JobState,
        kind: EventKind,
        outcome: str,
        values: Mapping[str, Any],
        error: JobError | None = None,
    ) -> Job:
        """Ends the attempt and moves a job whose row this transaction has locked."""
        guard = Guard(job.id, frozenset({job.state}), job.lease_token)
        document = error_to_document(error)
        payload = {} if document is None else {"error": document}
        changed = self._transition(guard, state, kind, values, **payload)
        if changed is None:
            raise LeaseLostError(job.id, job.lease_token)
        self._end_attempt(changed, outcome, document)
        return changed

    def _end_attempt(self, job: Job, outcome: str, error: Mapping[str, Any] | None = None) -> None:
        conditions = (attempts.c.job_id == job.id, attempts.c.number == job.attempt, attempts.c.ended_at.is_(None))
        values = {"ended_at": database_time(), "outcome": outcome, "error": error}
        self._connection.execute(update(attempts).where(and_(*conditions)).values(values))
