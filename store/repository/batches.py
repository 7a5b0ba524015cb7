"""Batches: many jobs stored in one transaction, read back side by side with what can be compared of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, select

from store.errors import IdempotencyConflictError, NotFoundError
from store.ids import IdPrefix, new_id
from store.jobs import Batch, BatchMember, BatchSummary, JobState, NewBatch
from store.repository.base import owned
from store.repository.clock import database_time
from store.repository.jobs import JobPart
from store.repository.rows import job_from_row
from store.tables import artifacts, batch_jobs, batches, jobs, linears

if TYPE_CHECKING:
    from sqlalchemy import Row


class BatchPart(JobPart):
    """The part of the repository that batches use."""

    def add_batch(self, new: NewBatch) -> tuple[Batch, bool]:
        """Stores a batch with all its jobs and returns (batch, True), or (the earlier one, False) where the
        idempotency key was used. Raises IdempotencyConflictError where that came with another request.
        """
        statement = self._insert(batches).values(
            id=new_id(IdPrefix.BATCH),
            owner_key_id=new.owner_key_id,
            name=new.name,
            idempotency_key=new.idempotency_key,
            request_sha256=new.request_sha256,
            created_at=database_time(),
        )
        if new.idempotency_key is not None:
            statement = statement.on_conflict_do_nothing(index_elements=["owner_key_id", "idempotency_key"])
        batch_id = self._connection.execute(statement.returning(batches.c.id)).scalar_one_or_none()
        if batch_id is None:
            return self._earlier_batch(new), False
        places = [
            {
                "batch_id": batch_id,
                "model_index": cell.model_index,
                "config_index": cell.config_index,
                "job_id": self.add_job(cell.job)[0].id,
            }
            for cell in new.cells
        ]
        self._connection.execute(insert(batch_jobs), places)
        return self.get_batch(batch_id), True

    def _earlier_batch(self, new: NewBatch) -> Batch:
        row = self._connection.execute(
            select(batches).where(
                batches.c.owner_key_id == new.owner_key_id, batches.c.idempotency_key == new.idempotency_key
            )
        ).one()
        if row.request_sha256 != new.request_sha256:
            raise IdempotencyConflictError(str(new.idempotency_key))
        return self._batch(row)

    def get_batch(self, batch_id: str, owner: str | None = None) -> Batch:
        """Returns the batch with its jobs that still exist; raises NotFoundError also where it is another owner's."""
        statement = owned(select(batches).where(batches.c.id == batch_id), batches, owner)
        row = self._connection.execute(statement).one_or_none()
        if row is None:
            raise NotFoundError("batch", batch_id)
        return self._batch(row)

    def list_batches(
        self, owner: str | None, limit: int, before: str | None = None, *, job_id: str | None = None
    ) -> tuple[BatchSummary, ...]:
        """Returns the newest batches first; `before`: the id of the last one of the page before.

        job_id: only the batch that this job came with.
        """
        statement = owned(select(batches), batches, owner).order_by(batches.c.id.desc()).limit(limit)
        if before is not None:
            statement = statement.where(batches.c.id < before)
        if job_id is not None:
            member = select(batch_jobs.c.batch_id).where(batch_jobs.c.job_id == job_id)
            statement = statement.where(batches.c.id.in_(member))
        rows = self._connection.execute(statement).all()
        states = self._states([row.id for row in rows])
        return tuple(
            BatchSummary(id=row.id, name=row.name, created_at=row.created_at, states=states[row.id]) for row in rows
        )

    def _states(self, batch_ids: Sequence[str]) -> Mapping[str, Mapping[JobState, int]]:
        statement = (
            select(batch_jobs.c.batch_id, jobs.c.state, func.count())
            .join(jobs, jobs.c.id == batch_jobs.c.job_id)
            .where(batch_jobs.c.batch_id.in_(batch_ids))
            .group_by(batch_jobs.c.batch_id, jobs.c.state)
        )
        found: dict[str, dict[JobState, int]] = {batch_id: {} for batch_id in batch_ids}
        for batch_id, state, count in self._connection.execute(statement):
            found[batch_id][JobState(state)] = count
        return found

    def _batch(self, row: Row[Any]) -> Batch:
        statement = (
            select(jobs, batch_jobs.c.model_index, batch_jobs.c.config_index)
            .join(batch_jobs, batch_jobs.c.job_id == jobs.c.id)
            .where(batch_jobs.c.batch_id == row.id)
            .order_by(batch_jobs.c.model_index, batch_jobs.c.config_index)
        )
        found = self._connection.execute(statement).all()
        sizes, losses = self._sizes(row.id), self._losses(row.id)
        members = tuple(
            BatchMember(
                job=job_from_row(member),
                model_index=member.model_index,
                config_index=member.config_index,
                artifact_bytes=sizes.get(member.id),
                mean_relative_loss=losses.get(member.id),
            )
            for member in found
        )
        return Batch(
            id=row.id, owner_key_id=row.owner_key_id, name=row.name, created_at=row.created_at, members=members
        )

    def _sizes(self, batch_id: str) -> Mapping[str, int]:
        statement = (
            select(artifacts.c.job_id, func.sum(artifacts.c.size_bytes))
            .join(batch_jobs, batch_jobs.c.job_id == artifacts.c.job_id)
            .where(batch_jobs.c.batch_id == batch_id)
            .group_by(artifacts.c.job_id)
        )
        return {str(job_id): int(size) for job_id, size in self._connection.execute(statement)}

    def _losses(self, batch_id: str) -> Mapping[str, float | None]:
        statement = (
            select(linears.c.job_id, func.avg(linears.c.relative_loss))
            .join(batch_jobs, batch_jobs.c.job_id == linears.c.job_id)
            .where(batch_jobs.c.batch_id == batch_id)
            .group_by(linears.c.job_id)
        )
        return {str(job_id): mean for job_id, mean in self._connection.execute(statement)}
