"""Whole tables as plain rows, for moving an installation to another database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import func, insert, select

from store.repository.base import RepositoryBase
from store.tables import events, jobs, metadata, workers

ROWS_AT_A_TIME = 1000

# A worker signs on by itself wherever it runs, so its row would only tell of a process that is not there.
_NOT_MOVED = frozenset({"event_clock", workers.name})
_TABLES = {table.name: table for table in metadata.sorted_tables if table.name not in _NOT_MOVED}


class TransferPart(RepositoryBase):
    """The part of the repository that `store.transfer` uses."""

    def moved_tables(self) -> tuple[str, ...]:
        """Returns the tables that make up an installation; none refers to a later one."""
        return tuple(_TABLES)

    def table_size(self, table: str) -> int:
        """Returns how many rows a table has."""
        return self._connection.execute(select(func.count()).select_from(_TABLES[table])).scalar_one()

    def held_jobs(self) -> int:
        """Returns how many jobs a worker holds at this moment."""
        held = select(func.count()).select_from(jobs).where(jobs.c.lease_expires_at.is_not(None))
        return self._connection.execute(held).scalar_one()

    def table_rows(self, table: str) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Yields a table's rows, some at a time.

        An event's position is left out: it has a meaning in its own database alone, and the other one gives it anew.
        """
        columns = [column for column in _TABLES[table].c if column is not events.c.position]
        result = self._connection.execution_options(yield_per=ROWS_AT_A_TIME).execute(_in_order(table, columns))
        for rows in result.mappings().partitions():
            yield [dict(row) for row in rows]

    def add_rows(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes rows as another database held them."""
        self._connection.execute(insert(_TABLES[table]), rows)


def _in_order(table: str, columns: Sequence[Any]) -> Any:  # noqa: ANN401 - a SELECT of any row type
    """Returns a SELECT by primary key; events in the order in which they happened, for positions follow it."""
    first = (events.c.position,) if table == events.name else ()
    return select(*columns).order_by(*first, *_TABLES[table].primary_key.columns)
