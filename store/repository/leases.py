"""Jobs as workers see them while they hold one: claim, renew, report. How a claim ends is in `endings`.

Every write carries the lease token of the claim; a token that is no longer the row's changes nothing.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, func, insert, select

from store.errors import LeaseLostError
from store.jobs import (
    HELD_STATES,
    EventKind,
    Job,
    JobEvent,
    JobProgress,
    JobState,
    LinearRow,
    Stage,
)
from store.repository.base import Guard, RepositoryBase
from store.repository.clock import database_time
from store.repository.jobs import NO_PROGRESS
from store.repository.queue import eligible, fair_order, in_turn
from store.repository.rows import job_from_row
from store.tables import attempts, jobs, linears, turns
from store.workers import Capability

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Row, Select

LEASE_SECONDS = 60
# More workers than this claiming at the same moment would leave some without a job until the next wake-up.
CANDIDATES = 32
_RESERVED_KINDS = frozenset(EventKind)


def _best_candidate(queue_class: str, capability: Capability | None) -> Select[str]:
    """The eligible job whose turn it is, see `queue`.

    The order is made without locks over all jobs, and the lock taken on the first of the best few that is free:
    a sort under FOR UPDATE would have to order the whole queue.
    """
    fair = fair_order(queue_class, capability)
    best = select(fair).order_by(*in_turn(fair)).limit(CANDIDATES).subquery("best")
    return (
        select(jobs.c.id)
        .join(best, best.c.id == jobs.c.id)
        # Asked again, because another worker may have taken and returned the row since the order was made.
        .where(eligible(queue_class, capability))
        .order_by(*in_turn(best))
        .limit(1)
        # Two workers never wait for one row; SQLite has one writer at a time and ignores this.
        .with_for_update(of=jobs, skip_locked=True)
    )


def _larger(column: Any, value: float) -> Any:  # noqa: ANN401 - SQL expressions of any number type
    return case((column < value, value), else_=column)


class LeasePart(RepositoryBase):
    """The part of the repository that supervisors use while a job runs."""

    def claim(
        self,
        worker_id: str,
        queue_class: str,
        lease_seconds: float = LEASE_SECONDS,
        capability: Capability | None = None,
    ) -> Job | None:
        """Takes the best eligible job of a class that the worker can run, or returns None where there is none."""
        job_id = self._connection.execute(_best_candidate(queue_class, capability)).scalar_one_or_none()
        if job_id is None:
            return None
        values = {
            "attempt": jobs.c.attempt + 1,
            "lease_token": jobs.c.lease_token + 1,
            "lease_expires_at": database_time(lease_seconds),
            "worker_id": worker_id,
            "stage": Stage.PREFLIGHT,
            "started_at": func.coalesce(jobs.c.started_at, database_time()),
            "heartbeat_at": database_time(),
            **NO_PROGRESS,
        }
        guard = Guard(job_id, frozenset({JobState.QUEUED}))
        job = self._transition(guard, JobState.RUNNING, EventKind.CLAIMED, values, worker_id=worker_id)
        if job is not None:
            opened = {"job_id": job.id, "number": job.attempt, "worker_id": worker_id, "started_at": database_time()}
            self._connection.execute(insert(attempts).values(opened))
            self._take_turn(job)
        return job

    def _take_turn(self, job: Job) -> None:
        statement = self._insert(turns).values(
            owner_key_id=job.owner_key_id, queue_class=job.queue_class, claimed_at=database_time()
        )
        taken = {"claimed_at": statement.excluded.claimed_at}
        self._connection.execute(
            statement.on_conflict_do_update(index_elements=["owner_key_id", "queue_class"], set_=taken)
        )

    def heartbeat(
        self,
        job_id: str,
        lease_token: int,
        *,
        stage: Stage,
        progress: JobProgress,
        lease_seconds: float = LEASE_SECONDS,
    ) -> Job:
        """Renews the lease and stores progress; the returned state tells a supervisor that a cancel was asked for.

        The stored fraction and block count never fall within an attempt. Raises LeaseLostError.
        """
        values = {
            "stage": stage,
            "lease_expires_at": database_time(lease_seconds),
            "heartbeat_at": database_time(),
            "progress_fraction": _larger(jobs.c.progress_fraction, min(max(progress.fraction, 0.0), 1.0)),
            "blocks_done": _larger(jobs.c.blocks_done, progress.blocks_done),
            "blocks_total": _larger(jobs.c.blocks_total, progress.blocks_total),
            "eta_at": progress.eta_at,
            "rss_bytes": progress.rss_bytes,
            "last_linear": progress.last_linear,
            "last_loss": progress.last_loss,
        }
        return job_from_row(self._write(job_id, lease_token, values))

    def set_resolved(self, job_id: str, lease_token: int, resolved: Mapping[str, Any]) -> Job:
        """Replaces what the worker found out about the job's inputs. Raises LeaseLostError."""
        return job_from_row(self._write(job_id, lease_token, {"resolved": dict(resolved)}))

    def _write(self, job_id: str, lease_token: int, values: Mapping[str, Any]) -> Row[Any]:
        """Writes under the lease in one UPDATE; raises LeaseLostError where it matched no row."""
        row = self._change(Guard(job_id, HELD_STATES, lease_token), values)
        if row is None:
            raise LeaseLostError(job_id, lease_token)
        return row

    def add_event(self, job_id: str, lease_token: int, kind: str, payload: Mapping[str, Any]) -> JobEvent:
        """Adds a worker's own event. Raises LeaseLostError, and ValueError for a kind that only transitions write."""
        if kind in _RESERVED_KINDS:
            raise ValueError(f"{kind!r} is written by transitions only")
        row = self._write(job_id, lease_token, {"event_count": jobs.c.event_count + 1})
        return self._append_event(row, kind, payload)

    def record_linears(self, job_id: str, lease_token: int, rows: Sequence[LinearRow], *, replace: bool = True) -> None:
        """Stores solved linears; one that was solved again after a resume replaces its earlier row.

        replace: False for what an earlier attempt has solved: its rows stay, and those that it could not write any more
        are made up for. Raises LeaseLostError.
        """
        attempt = self._write(job_id, lease_token, {}).attempt
        if not rows:
            return
        documents = [
            {**asdict(row), "warnings": list(row.warnings), "job_id": job_id, "attempt": attempt} for row in rows
        ]
        statement = self._insert(linears)
        replaced = {
            column.name: statement.excluded[column.name] for column in linears.columns if not column.primary_key
        }
        keys = [column.name for column in linears.primary_key]
        if replace:
            statement = statement.on_conflict_do_update(index_elements=keys, set_=replaced)
        else:
            statement = statement.on_conflict_do_nothing(index_elements=keys)
        self._connection.execute(statement, documents)
