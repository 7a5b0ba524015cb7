"""In which order queued jobs are claimed, and how many would be claimed before a given one.

By priority; then owners take turns: the one with the fewest jobs at work first, then the one who waited longest for a
turn. An owner's next job counts as if the ones before it were at work already, so a thousand jobs of one owner do not
stand in front of another owner's first.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Subquery, and_, case, func, or_, select

from store.jobs import Job, JobState, QueuePosition
from store.repository.clock import database_time
from store.repository.rows import job_from_row
from store.repository.workers import WorkerPart
from store.tables import jobs, turns
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
    in_time = or_(jobs.c.deadline_at.is_(None), jobs.c.deadline_at > database_time())
    waiting = and_(jobs.c.state == JobState.QUEUED, jobs.c.available_at <= database_time(), in_time)
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


def fair_order(queue_class: str, capability: Capability | None = None, also: str = "") -> Subquery:
    """Returns id, priority, load, served, served_at and created_at of the jobs that may be claimed now.

    capability: of the worker that claims. also: the id of a job that is to be among them even where it still
    waits for its retry delay.
    """
    busy = held_by_owner()
    turn = and_(turns.c.owner_key_id == jobs.c.owner_key_id, turns.c.queue_class == jobs.c.queue_class)
    before = func.row_number().over(
        partition_by=(jobs.c.owner_key_id, jobs.c.priority), order_by=(jobs.c.created_at, jobs.c.id)
    )
    return (
        select(
            jobs.c.id,
            jobs.c.priority,
            (func.coalesce(busy.c.held, 0) + before).label("load"),
            case((turns.c.claimed_at.is_(None), 0), else_=1).label("served"),
            turns.c.claimed_at.label("served_at"),
            jobs.c.created_at,
        )
        .select_from(jobs.outerjoin(busy, busy.c.owner_key_id == jobs.c.owner_key_id).outerjoin(turns, turn))
        .where(or_(eligible(queue_class, capability), jobs.c.id == also))
        .subquery("fair")
    )


def in_turn(fair: Subquery) -> tuple[ColumnElement[Any], ...]:
    """Returns what the jobs of `fair_order` are sorted by; the first of them is claimed next."""
    return (fair.c.priority.desc(), fair.c.load, fair.c.served, fair.c.served_at, fair.c.created_at, fair.c.id)


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
            position=self._place(job),
            waiting=waiting,
            workers=len(taking),
            free_slots=sum(max(worker.facts.slots - worker.busy, 0) for worker in taking),
            obstacle=obstacle,
        )

    def _place(self, job: Job) -> int:
        """1 for the job that is claimed next."""
        fair = fair_order(job.queue_class, also=job.id)
        places = select(fair.c.id, func.row_number().over(order_by=in_turn(fair)).label("place")).subquery("places")
        return self._count(select(places.c.place).where(places.c.id == job.id))

    def _count(self, statement: Any) -> int:  # noqa: ANN401 - a SELECT of one number
        return int(self._connection.execute(statement).scalar_one())
