"""Moves an installation from one database to another, such as from SQLite to PostgreSQL: all rows or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from store.errors import TransferRefusedError
from store.repository import Repository
from store.session import Database


def copy_database(
    source: Database, target: Database, on_rows: Callable[[str, int, int], None] = lambda _table, _rows, _total: None
) -> Mapping[str, int]:
    """Copies every row and returns the number of rows by table; the source is not changed.

    Both are brought to the newest schema first. on_rows is told a table, its rows so far and how many it has. Bytes in
    the object store are named by their hash and stay where they are. Raises TransferRefusedError where a worker holds
    a job in the source or the target is not empty, StorageUnavailableError; the target is then as empty as before.
    """
    source.upgrade()
    target.upgrade()
    copied: dict[str, int] = {}
    with source.snapshot() as old, target.transaction() as new:
        _refuse(old, new)
        for table in old.moved_tables():
            total = old.table_size(table)
            copied[table] = 0
            for rows in old.table_rows(table):
                new.add_rows(table, rows)
                copied[table] += len(rows)
                on_rows(table, copied[table], total)
        new.settle_webhooks()
    return copied


def _refuse(old: Repository, new: Repository) -> None:
    held = old.held_jobs()
    if held:
        raise TransferRefusedError(
            f"A worker holds {held} jobs of this database.", "Stop the API and the workers, then run it again."
        )
    filled = [table for table in new.moved_tables() if new.table_size(table)]
    if filled:
        raise TransferRefusedError(
            f"The other database holds rows already ({', '.join(filled)}).", "Name an empty database."
        )
