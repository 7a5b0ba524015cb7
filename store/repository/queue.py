"""In which order queued jobs are claimed: what a claim sorts by, and how many would be claimed before a given one."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Subquery, and_, func, or_, select, tuple_

from store.jobs import Job, JobState, QueuePosition
from store.repository.clock import database_time
from store.repository.rows import job_from_row
from store.repository.workers import WorkerPart
from store.tables import jobs
from store.workers import Capability, able


def held_by_owner() -> Subquery:
    """How many jobs each owner has with workers now; owners with none are missing."""
    return (
        select(jobs.c.owner_key_id, func.count().label("held"))
        .where(jobs.c.lease_expires_at.is_not(None))
        .group_by(jobs.c.owner_key_id)
        .subquery("busy")
    )


def claimable(capability: Capability | None = None) -> ColumnElement[bool]:
    """The jobs that a worker may claim now, of whatever class. capability: what it has; None: enough for any job."""
    waiting = and_(jobs.c.state == JobState.QUEUED, jobs.c.available_at <= database_time())
    if capability is None:
        return waiting
    return and_(
        waiting,
        or_(jobs.c.needed_device.is_(None), jobs.c.needed_device == capability.device),
        or_(jobs.c.needed_memory_bytes.is_(None), jobs.c.needed_memory_bytes <= capability.memory_bytes),
    )


def eligible(queue_class: str, capability: Capability | None = None) -> ColumnElement[bool]:
    """The jobs of a class that a worker may claim now."""
    return and_(jobs.c.queue_class == queue_class, claimable(capability))


class QueuePart(WorkerPart):
    """The part of the repository that says where a job stands."""

    def queue_position(self, job_id: str, owner: str | None = None) -> QueuePosition:
        """Counts the jobs that would be claimed before this one, were they claimed now, and the workers that could take
        it; raises NotFoundError.
        """
        job = job_from_row(self._job_row(job_id, owner))
        waiting = self._count(select(func.count()).select_from(jobs).where(eligible(job.queue_class)))
        if job.state is not JobState.QUEUED:
            return QueuePosition(job=job, position=None, waiting=waiting)
        taking, obstacle = able(self.list_workers(), job.queue_class, job.needs)
        return QueuePosition(
            job=job,
            position=self._ahead(job) + 1,
            waiting=waiting,
            workers=len(taking),
            free_slots=sum(max(worker.facts.slots - worker.busy, 0) for worker in taking),
            obstacle=obstacle,
        )

    def _ahead(self, job: Job) -> int:
        """How many jobs would be claimed before this one."""
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
            .where(eligible(job.queue_class))
            .where(or_(jobs.c.priority > job.priority, and_(jobs.c.priority == job.priority, tuple_(*place) < mine)))
        )
        return self._count(ahead)

    def _count(self, statement: Any) -> int:  # noqa: ANN401 - a SELECT of one number
        return int(self._connection.execute(statement).scalar_one())
