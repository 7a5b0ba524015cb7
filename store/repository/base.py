"""What every part of the repository stands on: the guarded UPDATE, the event that goes with it, the owner filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import BigInteger, Select, Text, and_, bindparam, cast, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from store.errors import NotFoundError
from store.jobs import HELD_STATES, TRANSITIONS, EventKind, Job, JobEvent, JobState
from store.repository.clock import database_time
from store.repository.rows import event_from_row, job_from_row
from store.tables import checkpoints, events, jobs

if TYPE_CHECKING:
    from sqlalchemy import Row, Table
    from sqlalchemy.engine import Connection
    from sqlalchemy.sql.dml import ReturningInsert

S = TypeVar("S")

OF_JOB = "of_job"
"""The parameter that names the job whose last event is looked up."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What a job must still be for a change to happen. lease_token: None where no lease is involved."""

    job_id: str
    states: frozenset[JobState]
    lease_token: int | None = None


def owned(statement: Select[S], table: Table, owner: str | None) -> Select[S]:
    """The one place where rows are filtered by owner. None: the caller may see every owner's rows."""
    return statement if owner is None else statement.where(table.c.owner_key_id == owner)


def state_columns(state: JobState) -> dict[str, Any]:
    """Returns the columns that follow from a state alone, so that no transition can forget one of them."""
    columns: dict[str, Any] = {"state": state, "finished_at": database_time() if state.terminal else None}
    if state not in HELD_STATES:
        columns |= {"lease_expires_at": None, "worker_id": None, "stage": None}
    return columns


def insert_into(table: Table, dialect: str) -> postgresql.Insert | sqlite.Insert:
    """Returns an INSERT that knows ON CONFLICT, which both databases spell alike."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


@cache
def _event_insert(dialect: str) -> ReturningInsert[Any]:
    """Returns the INSERT of an event, put together once per process: it is written at every transition.

    Its position is where it stands among those of all jobs. On PostgreSQL: the number of this transaction, but never
    below that of the job's event before, which a transaction with a larger number may have written. Not below its own
    number either, so no reader that stops at the oldest open transaction passes it. On SQLite a trigger counts.
    """
    statement = insert(events).values(at=database_time()).returning(*events.c)
    if dialect != "postgresql":
        return statement
    own = cast(cast(func.pg_current_xact_id(), Text), BigInteger)
    last = select(events.c.position).where(events.c.job_id == bindparam(OF_JOB)).order_by(events.c.seq.desc()).limit(1)
    return statement.values(position=func.greatest(own, func.coalesce(last.scalar_subquery(), 0)))


class RepositoryBase:
    """Holds the connection of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def _now(self) -> datetime:
        """Returns the database's time."""
        now: datetime = self._connection.execute(select(database_time())).scalar_one()
        return now

    def _insert(self, table: Table) -> postgresql.Insert | sqlite.Insert:
        return insert_into(table, self._connection.dialect.name)

    def _change(self, guard: Guard, values: Mapping[str, Any]) -> Row[Any] | None:
        """Updates the job's row if the guard holds, else returns None. The row stays locked until the commit."""
        conditions = [jobs.c.id == guard.job_id, jobs.c.state.in_(guard.states)]
        if guard.lease_token is not None:
            conditions.append(jobs.c.lease_token == guard.lease_token)
        common = {"version": jobs.c.version + 1, "updated_at": database_time()}
        statement = update(jobs).where(and_(*conditions)).values({**common, **values}).returning(*jobs.c)
        return self._connection.execute(statement).one_or_none()

    def _transition(
        self, guard: Guard, state: JobState, kind: EventKind, values: Mapping[str, Any], **payload: object
    ) -> Job | None:
        """Moves a job into a state and writes the event, or returns None where the guard does not hold."""
        if any(state not in TRANSITIONS[origin] for origin in guard.states):
            raise ValueError(f"No transition leads from {sorted(guard.states)} to {state}")
        counted = {"event_count": jobs.c.event_count + 1}
        row = self._change(guard, {**state_columns(state), **counted, **values})
        if row is None:
            return None
        self._append_event(row, kind, {"state": state, **payload})
        if state.terminal:
            # Nobody goes on with it; the sweep may have the bytes.
            self._connection.execute(delete(checkpoints).where(checkpoints.c.job_id == guard.job_id))
        return job_from_row(row)

    def _append_event(self, job_row: Row[Any], kind: str, payload: Mapping[str, Any]) -> JobEvent:
        """Writes the event whose number the UPDATE that returned `job_row` has just taken under the row's lock."""
        values = {
            "job_id": job_row.id,
            "seq": job_row.event_count,
            "kind": kind,
            "attempt": job_row.attempt,
            "payload": dict(payload),
        }
        dialect = self._connection.dialect.name
        place = {OF_JOB: job_row.id} if dialect == "postgresql" else {}
        return event_from_row(self._connection.execute(_event_insert(dialect), {**values, **place}).one())

    def _job_row(self, job_id: str, owner: str | None, *, lock: bool = False) -> Row[Any]:
        """Returns a job's row; raises NotFoundError also where it is another owner's."""
        statement = owned(select(jobs).where(jobs.c.id == job_id), jobs, owner)
        if lock:
            statement = statement.with_for_update()
        row = self._connection.execute(statement).one_or_none()
        if row is None:
            raise NotFoundError("job", job_id)
        return row
