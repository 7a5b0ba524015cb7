"""What a job leaves behind: events, attempts, solved linears, artifacts. Reading only."""

from __future__ import annotations

from sqlalchemy import select, tuple_

from store.errors import NotFoundError
from store.jobs import Artifact, Attempt, JobEvent, LinearRow
from store.repository.base import RepositoryBase
from store.repository.rows import artifact_from_row, attempt_from_row, event_from_row, linear_from_row
from store.tables import artifacts, attempts, events, linears


class HistoryPart(RepositoryBase):
    """Each method raises NotFoundError where the job is missing or another owner's."""

    def list_events(
        self, job_id: str, after_seq: int = 0, limit: int = 1000, *, owner: str | None = None
    ) -> tuple[JobEvent, ...]:
        """Returns up to limit events behind after_seq, oldest first."""
        self._job_row(job_id, owner)
        statement = select(events).where(events.c.job_id == job_id, events.c.seq > after_seq)
        rows = self._connection.execute(statement.order_by(events.c.seq).limit(limit))
        return tuple(event_from_row(row) for row in rows)

    def list_attempts(self, job_id: str, *, owner: str | None = None) -> tuple[Attempt, ...]:
        """Returns every claim of the job, oldest first."""
        self._job_row(job_id, owner)
        rows = self._connection.execute(select(attempts).where(attempts.c.job_id == job_id).order_by(attempts.c.number))
        return tuple(attempt_from_row(row) for row in rows)

    def list_linears(
        self, job_id: str, after: tuple[int, str] | None = None, limit: int = 1000, *, owner: str | None = None
    ) -> tuple[LinearRow, ...]:
        """Returns up to limit solved linears behind the (block, linear) `after`, by block and name."""
        self._job_row(job_id, owner)
        statement = select(linears).where(linears.c.job_id == job_id)
        if after is not None:
            place = tuple_(*after, types=[linears.c.block.type, linears.c.linear.type])
            statement = statement.where(tuple_(linears.c.block, linears.c.linear) > place)
        rows = self._connection.execute(statement.order_by(linears.c.block, linears.c.linear).limit(limit))
        return tuple(linear_from_row(row) for row in rows)

    def list_artifacts(self, job_id: str, *, owner: str | None = None) -> tuple[Artifact, ...]:
        """Returns the published files by name; none before the job has succeeded."""
        self._job_row(job_id, owner)
        rows = self._connection.execute(
            select(artifacts).where(artifacts.c.job_id == job_id).order_by(artifacts.c.name)
        )
        return tuple(artifact_from_row(row) for row in rows)

    def get_artifact(self, job_id: str, artifact_id: str, *, owner: str | None = None) -> Artifact:
        """Raises NotFoundError also where the artifact is another job's."""
        self._job_row(job_id, owner)
        statement = select(artifacts).where(artifacts.c.job_id == job_id, artifacts.c.id == artifact_id)
        row = self._connection.execute(statement).one_or_none()
        if row is None:
            raise NotFoundError("artifact", artifact_id)
        return artifact_from_row(row)
