"""Follows the events of all jobs in one order. A place in it never passes an open transaction: what commits later lies
behind every place that was given out before.

On PostgreSQL positions are numbers of transactions (see `base`), and only those below the oldest open
one are shown. A transaction that any client of the server keeps open holds the stream up, and nothing is lost by it.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import BigInteger, ColumnElement, Text, cast, func, select, tuple_

from store.jobs import HELD_STATES, Job, StreamedEvent, StreamPage, StreamPlace
from store.repository.base import RepositoryBase, owned
from store.repository.rows import event_from_row, job_from_row
from store.tables import event_clock, events, jobs


class StreamPart(RepositoryBase):
    """The part of the repository that live streams read."""

    def stream_end(self) -> StreamPlace:
        """Returns the place behind every event that is final now."""
        horizon = self._connection.execute(select(self._horizon())).scalar_one()
        return StreamPlace(position=horizon, job_id="", seq=0)

    def read_stream(
        self,
        after: StreamPlace,
        limit: int,
        *,
        owner: str | None = None,
        job_ids: Collection[str] = (),
        kinds: Collection[str] = (),
    ) -> StreamPage:
        """Returns up to limit final events behind a place, and the place to read on from.

        No job_ids: every job's. No kinds: every kind.
        """
        # Asked first: on PostgreSQL each statement sees what was committed before it began.
        end = self.stream_end()
        key = (events.c.position, events.c.job_id, events.c.seq)
        place = tuple_(after.position, after.job_id, after.seq, types=[column.type for column in key])
        statement = select(events, jobs.c.owner_key_id).join(jobs, jobs.c.id == events.c.job_id)
        statement = owned(statement, jobs, owner).where(tuple_(*key) > place, events.c.position < end.position)
        if job_ids:
            statement = statement.where(events.c.job_id.in_(job_ids))
        if kinds:
            statement = statement.where(events.c.kind.in_(kinds))
        rows = self._connection.execute(statement.order_by(*key).limit(limit)).all()
        read = tuple(
            StreamedEvent(
                event=event_from_row(row),
                owner_key_id=row.owner_key_id,
                place=StreamPlace(position=row.position, job_id=row.job_id, seq=row.seq),
            )
            for row in rows
        )
        return StreamPage(events=read, place=read[-1].place if len(read) == limit else max(after, end))

    def list_held_jobs(self, limit: int = 1000) -> tuple[Job, ...]:
        """Returns the jobs that workers hold now, those that heard of last first."""
        statement = select(jobs).where(jobs.c.lease_expires_at.is_not(None), jobs.c.state.in_(HELD_STATES))
        rows = self._connection.execute(statement.order_by(jobs.c.lease_expires_at.desc()).limit(limit))
        return tuple(job_from_row(row) for row in rows)

    def _horizon(self) -> ColumnElement[int]:
        """The first position that is not final."""
        if self._connection.dialect.name == "postgresql":
            return cast(cast(func.pg_snapshot_xmin(func.pg_current_snapshot()), Text), BigInteger)
        return select(event_clock.c.position + 1).scalar_subquery()
