"""How a claim ends: published, failed, cancelled, given back, taken from a silent worker; and the end of waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, insert, select, update

from store.errors import LeaseLostError, WrongStateError
from store.ids import IdPrefix, new_id
from store.jobs import HELD_STATES, EventKind, Job, JobError, JobState, NewArtifact, Stage, deadline_exceeded
from store.repository.base import Guard, RepositoryBase
from store.repository.clock import database_time
from store.repository.rows import error_to_document, job_from_row
from store.tables import artifacts, attempts, jobs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RESCUE_BATCH = 100


class EndingPart(RepositoryBase):
    """Each method with a token raises LeaseLostError where it is no longer the job's."""

    def succeed(
        self,
        job_id: str,
        lease_token: int,
        files: Sequence[NewArtifact],
        evaluation: Mapping[str, Any] | None = None,
        warnings: Sequence[Mapping[str, Any]] = (),
    ) -> Job:
        """Publishes: artifact rows and the final state in one transaction.

        Raises LeaseLostError, WrongStateError where a cancel came first (then the job is to be cancelled), and
        ValueError where two files have one name.
        """
        names = [file.name for file in files]
        if len(set(names)) != len(names):
            raise ValueError(f"A name stands twice among the files: {sorted(names)}")
        job = self._held_job(job_id, lease_token)
        if job.state is not JobState.RUNNING:
            raise WrongStateError(job_id, job.state, "published")
        values = {
            "evaluation": None if evaluation is None else dict(evaluation),
            "warnings": [dict(warning) for warning in warnings],
            "progress_fraction": 1.0,
            # The last heartbeat may be older than the last block.
            "blocks_done": jobs.c.blocks_total,
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

    def fail_overdue(self) -> tuple[str, ...]:
        """Ends queued jobs whose deadline has passed and returns their ids; at most RESCUE_BATCH a call.

        A job that a worker holds is ended by that worker.
        """
        statement = (
            select(jobs)
            .where(jobs.c.state == JobState.QUEUED, jobs.c.finished_at.is_(None), jobs.c.deadline_at <= database_time())
            .order_by(jobs.c.deadline_at)
            .limit(RESCUE_BATCH)
            .with_for_update(skip_locked=True)
        )
        overdue = [job_from_row(row) for row in self._connection.execute(statement)]
        for job in overdue:
            document = error_to_document(deadline_exceeded(job))
            guard = Guard(job.id, frozenset({JobState.QUEUED}), job.lease_token)
            self._transition(guard, JobState.FAILED, EventKind.FAILED, {"error": document}, error=document)
        return tuple(job.id for job in overdue)

    def _rescue(self, job: Job) -> Job:
        if job.state is JobState.CANCELLING:
            return self._end_cancelled(job)
        error = JobError(
            code="lease_lost",
            message=f"The worker {job.worker_id} stopped reporting.",
            hint="Look at that worker's log: it was killed, ran out of memory, or lost the database.",
            retryable=True,
            stage=job.stage,
            # The block that was under way: a job that takes its workers down at one place is told by it.
            block=job.progress.blocks_done if job.stage is Stage.QUANTIZING else None,
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
