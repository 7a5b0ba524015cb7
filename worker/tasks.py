"""The one task: a wake-up for a queue class becomes a claim, and a claim is worked to its end in this thread."""

from __future__ import annotations

import structlog
from celery import Celery

from store.errors import StorageUnavailableError
from store.jobs import Job
from store.wake_ups import RUN_NEXT
from worker.faults import FaultPoint
from worker.lease import lease_clock
from worker.services import Services
from worker.supervisor import Supervisor


def run_next(services: Services, queue_class: str) -> str | None:
    """Claims the best eligible job of a class and works it; returns its id, None where there was nothing to do.

    A wake-up is only a hint: it may come twice, late, for a job that is done, or while this worker is about to end.
    """
    if services.drain.requested:
        return None
    with services.slots:
        services.faults.hit(FaultPoint.RECEIVED)
        claimed_at = lease_clock()
        job = claim(services, queue_class)
        if job is not None:
            services.faults.hit(FaultPoint.CLAIMED)
            Supervisor(services, job, claimed_at).run()
    services.work_done.set()
    return None if job is None else job.id


def claim(services: Services, queue_class: str) -> Job | None:
    """Returns a claimed job; None where there is none, or where the database does not answer: a sweep wakes again."""
    try:
        with services.database.transaction() as repository:
            return repository.claim(
                services.worker_id, queue_class, services.settings.lease_seconds, services.capability
            )
    except StorageUnavailableError as error:
        structlog.get_logger().warning("claim_failed", queue_class=queue_class, reason=str(error))
        return None


def register(app: Celery, services: Services) -> None:
    """Registers the task under the name that wake-ups carry."""

    def task(queue_class: str, hint: str | None = None) -> None:
        structlog.get_logger().debug("wake_up", queue_class=queue_class, hint=hint)
        run_next(services, queue_class)

    app.task(name=RUN_NEXT, ignore_result=True)(task)
