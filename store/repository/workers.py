"""Which workers there are: they register themselves, tell that they live, and read there whether to drain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Select, delete, func, select, update

from store.errors import NotFoundError
from store.jobs import HELD_STATES
from store.repository.base import RepositoryBase, owned
from store.repository.clock import database_time
from store.tables import jobs, workers
from store.workers import LIVE_SECONDS, Capability, Worker, WorkerFacts

if TYPE_CHECKING:
    from sqlalchemy import Row

FACTS = ("hostname", "pid", "engine_version", "device_name", "slots")


class WorkerPart(RepositoryBase):
    """The part of the repository that workers use for themselves, and operators for all of them."""

    def register_worker(self, facts: WorkerFacts) -> bool:
        """Says that a worker lives, for the first time or again; returns whether it was asked to drain."""
        values = {
            "id": facts.id,
            **{name: getattr(facts, name) for name in FACTS},
            "device": facts.capability.device,
            "memory_bytes": facts.capability.memory_bytes,
            "queue_classes": list(facts.queue_classes),
            "registered_at": database_time(),
            "heartbeat_at": database_time(),
        }
        statement = self._insert(workers).values(values)
        statement = statement.on_conflict_do_update(index_elements=["id"], set_={"heartbeat_at": database_time()})
        asked = self._connection.execute(statement.returning(workers.c.drain_requested_at)).scalar_one()
        return asked is not None

    def remove_worker(self, worker_id: str) -> None:
        """Forgets a worker that ends; nothing happens where it is forgotten already."""
        self._connection.execute(delete(workers).where(workers.c.id == worker_id))

    def forget_workers(self, silent_seconds: float) -> int:
        """Removes workers that were not heard of for so long; returns how many."""
        silent = delete(workers).where(workers.c.heartbeat_at < database_time(-silent_seconds))
        return len(self._connection.execute(silent.returning(workers.c.id)).all())

    def list_workers(self, owner: str | None = None) -> tuple[Worker, ...]:
        """Returns every worker, the newest first; owner: whose jobs may be named in them."""
        statement = select(workers, _live()).order_by(workers.c.registered_at.desc(), workers.c.id)
        rows = self._connection.execute(statement).all()
        held, shown = self._held_by_worker(None), self._held_by_worker(owner)
        return tuple(_worker_from_row(row, len(held.get(row.id, ())), shown.get(row.id, ())) for row in rows)

    def get_worker(self, worker_id: str, owner: str | None = None) -> Worker:
        """Raises NotFoundError where no such worker is registered."""
        for worker in self.list_workers(owner):
            if worker.facts.id == worker_id:
                return worker
        raise NotFoundError("worker", worker_id)

    def drain_worker(self, worker_id: str, *, drain: bool) -> Worker:
        """Asks a worker to give its job back at the end of the block and to take no more, or to take jobs again.

        It hears of that with its next sign of life. Repeating changes nothing. Raises NotFoundError.
        """
        since = func.coalesce(workers.c.drain_requested_at, database_time()) if drain else None
        self._connection.execute(update(workers).where(workers.c.id == worker_id).values(drain_requested_at=since))
        return self.get_worker(worker_id)

    def _held_by_worker(self, owner: str | None) -> dict[str, tuple[str, ...]]:
        statement: Select[Any] = owned(select(jobs.c.worker_id, jobs.c.id), jobs, owner)
        held = statement.where(jobs.c.lease_expires_at.is_not(None), jobs.c.state.in_(HELD_STATES))
        found: dict[str, tuple[str, ...]] = {}
        for worker_id, job_id in self._connection.execute(held.order_by(jobs.c.id)):
            found[worker_id] = (*found.get(worker_id, ()), job_id)
        return found


def _live() -> ColumnElement[bool]:
    return (workers.c.heartbeat_at > database_time(-LIVE_SECONDS)).label("live")


def _worker_from_row(row: Row[Any], busy: int, shown: tuple[str, ...]) -> Worker:
    facts = WorkerFacts(
        id=row.id,
        **{name: getattr(row, name) for name in FACTS},
        capability=Capability(device=row.device, memory_bytes=row.memory_bytes),
        queue_classes=tuple(row.queue_classes),
    )
    return Worker(
        facts=facts,
        live=bool(row.live),
        busy=busy,
        jobs=shown,
        registered_at=row.registered_at,
        heartbeat_at=row.heartbeat_at,
        drain_requested_at=row.drain_requested_at,
    )
