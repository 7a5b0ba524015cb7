"""Workers: which there are, what they have, and how an operator takes one out of service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from fastapi import APIRouter

from api.deps import Admin, JobReader, ServicesDep, WorkerId
from api.problems import responses
from api.schemas.workers import CapacityView, WorkerList, WorkerView
from store.workers import Worker

router = APIRouter(prefix="/v1/workers", tags=["workers"])


@router.get("", operation_id="listWorkers", summary="List workers", responses=responses(401, 403, 503))
def list_workers(services: ServicesDep, principal: JobReader) -> WorkerList:
    """Returns every worker with its device, memory and jobs, and how much room each queue class has."""
    with services.database.reading() as repository:
        workers, waiting = repository.list_workers(principal.sees), repository.queued_counts()
    classes = {
        *services.settings.queue_classes,
        *waiting,
        *(name for one in workers for name in one.facts.queue_classes),
    }
    return WorkerList(
        data=[worker_view(worker) for worker in workers],
        capacity=[_capacity(name, workers, waiting) for name in sorted(classes)],
    )


@router.get("/{worker_id}", operation_id="getWorker", summary="Read a worker", responses=responses(401, 403, 404, 503))
def get_worker(worker_id: WorkerId, services: ServicesDep, principal: JobReader) -> WorkerView:
    """Returns one worker."""
    with services.database.reading() as repository:
        return worker_view(repository.get_worker(worker_id, principal.sees))


@router.post(
    "/{worker_id}:drain",
    operation_id="drainWorker",
    summary="Drain a worker",
    responses=responses(401, 403, 404, 503),
)
def drain_worker(worker_id: WorkerId, services: ServicesDep, principal: Admin) -> WorkerView:  # noqa: ARG001 - asked for its scope
    """Lets a worker finish the block under way, give its job back without counting the attempt, and take no more.

    It hears of that with its next sign of life, within ten seconds. Repeating is harmless; a restart ends it.
    """
    with services.database.transaction() as repository:
        return worker_view(repository.drain_worker(worker_id, drain=True))


@router.post(
    "/{worker_id}:resume",
    operation_id="resumeWorker",
    summary="Let a drained worker work again",
    responses=responses(401, 403, 404, 503),
)
def resume_worker(worker_id: WorkerId, services: ServicesDep, principal: Admin) -> WorkerView:  # noqa: ARG001 - asked for its scope
    """Takes a drain back: the worker claims jobs again from its next sign of life on."""
    with services.database.transaction() as repository:
        return worker_view(repository.drain_worker(worker_id, drain=False))


def worker_view(worker: Worker) -> WorkerView:
    """Returns one worker."""
    facts = asdict(worker.facts)
    capability = facts.pop("capability")
    facts["queue_classes"] = list(worker.facts.queue_classes)
    return WorkerView(
        **facts,
        **capability,
        state=_state(worker),
        busy=worker.busy,
        jobs=list(worker.jobs),
        registered_at=worker.registered_at,
        heartbeat_at=worker.heartbeat_at,
        drain_requested_at=worker.drain_requested_at,
    )


def _state(worker: Worker) -> str:
    if not worker.live:
        return "lost"
    if worker.drain_requested_at is not None:
        return "draining" if worker.busy else "drained"
    return "busy" if worker.busy else "idle"


def _capacity(queue_class: str, workers: Sequence[Worker], waiting: Mapping[str, int]) -> CapacityView:
    taking = [worker for worker in workers if worker.takes_jobs and queue_class in worker.facts.queue_classes]
    return CapacityView(
        queue_class=queue_class,
        workers=len(taking),
        slots=sum(worker.facts.slots for worker in taking),
        busy=sum(worker.busy for worker in taking),
        free=sum(max(worker.facts.slots - worker.busy, 0) for worker in taking),
        waiting=waiting.get(queue_class, 0),
        largest_memory_bytes=max((worker.facts.capability.memory_bytes for worker in taking), default=None),
    )
