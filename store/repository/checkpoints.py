"""Finished blocks of jobs under way that lie in the object store, so that a worker on another machine can go on.

Rows go with the job's end (`base`), and the sweep frees the bytes after that.
"""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import delete, or_, select

from store.errors import LeaseLostError
from store.jobs import HELD_STATES, Checkpoint
from store.repository.base import RepositoryBase
from store.repository.clock import database_time
from store.tables import checkpoints, jobs


class CheckpointPart(RepositoryBase):
    """The part of the repository that carries blocks from worker to worker."""

    def record_checkpoint(self, job_id: str, lease_token: int, checkpoint: Checkpoint) -> None:
        """Says that a block is in the object store. What does not go before it in the same run is forgotten: later
        blocks, and those of another fingerprint. It does not change the job's version. Raises LeaseLostError.
        """
        held = select(jobs.c.attempt).where(
            jobs.c.id == job_id, jobs.c.lease_token == lease_token, jobs.c.state.in_(HELD_STATES)
        )
        attempt = self._connection.execute(held.with_for_update()).scalar_one_or_none()
        if attempt is None:
            raise LeaseLostError(job_id, lease_token)
        overtaken = or_(checkpoints.c.block >= checkpoint.block, checkpoints.c.fingerprint != checkpoint.fingerprint)
        self._connection.execute(delete(checkpoints).where(checkpoints.c.job_id == job_id, overtaken))
        values = {**asdict(checkpoint), "job_id": job_id, "attempt": attempt, "created_at": database_time()}
        self._connection.execute(self._insert(checkpoints).values(values))

    def list_checkpoints(self, job_id: str) -> tuple[Checkpoint, ...]:
        """Returns the blocks from the first on without a gap; none for a job that is over or unknown."""
        statement = select(checkpoints).where(checkpoints.c.job_id == job_id).order_by(checkpoints.c.block)
        found = [
            Checkpoint(
                block=row.block,
                fingerprint=row.fingerprint,
                sha256=row.sha256,
                size_bytes=row.size_bytes,
                record=row.record,
            )
            for row in self._connection.execute(statement)
        ]
        return tuple(checkpoint for number, checkpoint in enumerate(found) if checkpoint.block == number)
