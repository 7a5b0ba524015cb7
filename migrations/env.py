"""Runs the steps on the connection that the caller opened, inside the caller's transaction: all of them or none.

Alembic loads this file by path. It opens no connection and reads no environment.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import text
from sqlalchemy.engine import Connection

# Any constant will do, as long as every process that migrates takes the same one.
LOCK_NUMBER = 0x6269746D


def run(connection: Connection) -> None:
    """Lets one process at a time migrate; SQLite's transaction has locked the file already."""
    if connection.dialect.name == "postgresql":
        # Waiting for the other process may take as long as its migration does.
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK_NUMBER})"))
    context.configure(connection=connection, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


run(context.config.attributes["connection"])
