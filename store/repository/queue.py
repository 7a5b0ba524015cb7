"""In which order queued jobs are claimed: what a claim sorts by, and how many would be claimed before a given one."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Subquery, and_, func, or_, select, tuple_

from store.jobs import JobState, QueuePosition
from store.repository.base import RepositoryBase
from store.repository.clock import database_time
from store.repository.rows import job_from_row
from store.tables import jobs


def held_by_owner() -> Subquery:
    """How many jobs each owner has with workers now; owners with none are missing."""
    return (
        select(jobs.c.owner_key_id, func.count().label("held"))
        .where(jobs.c.lease_expires_at.is_not(None))
        .group_by(jobs.c.owner_key_id)
        .subquery("busy")
    )


def eligible(queue_class: str) -> ColumnElement[bool]:
    """The jobs of a class that a worker may claim now."""
    return and_(
        jobs.c.state == JobState.QUEUED,
        jobs.c.queue_class == queue_class,
        jobs.c.available_at <= database_time(),
    )


class QueuePart(RepositoryBase):
    """The part of the repository that says where a job stands."""

    def queue_position(self, job_id: str, owner: str | None = None) -> QueuePosition:
        """Counts the jobs that would be claimed before this one, were they claimed now; raises NotFoundError."""
        job = job_from_row(self._job_row(job_id, owner))
        eligible_here = eligible(job.queue_class)
        waiting = self._count(select(func.count()).select_from(jobs).where(eligible_here))
        if job.state is not JobState.QUEUED:
            return QueuePosition(job=job, position=None, waiting=waiting)
        held = self._count(
            select(func.count())
            .select_from(jobs)
            .where(jobs.c.owner_key_id == job.owner_key_id, jobs.c.lease_expires_at.is_not(None))
        )
        busy = held_by_owner()
        place = (func.coalesce(busy.c.held, 0), jobs.c.created_at, jobs.c.id)
        mine = tuple_(held, job.created_at, job.id, types=[column.type for column in place])
        ahead = (
            select(func.count())
            .select_from(jobs.outerjoin(busy, busy.c.owner_key_id == jobs.c.owner_key_id))
            .where(eligible_here)
            .where(or_(jobs.c.priority > job.priority, and_(jobs.c.priority == job.priority, tuple_(*place) < mine)))
        )
        return QueuePosition(job=job, position=self._count(ahead) + 1, waiting=waiting)

    def _count(self, statement: Any) -> int:  # noqa: ANN401 - a SELECT of one number
        return int(self._connection.execute(statement).scalar_one())
