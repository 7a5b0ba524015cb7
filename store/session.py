"""Opens the database and hands out transactions with a repository in them; brings the schema to its newest version.

SQLite runs in WAL mode and writers take their lock at BEGIN, so that two never deadlock on an upgrade of a read lock.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, event, make_url, text
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from store.errors import StorageUnavailableError
from store.liveness import Liveness
from store.repository import Repository

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from sqlalchemy import URL
    from sqlalchemy.engine import Connection, Engine

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"
SQLITE_BUSY_SECONDS = 15
READ_ONLY = "bitmill_read_only"
POSTGRES_INTERNAL_CLASS = "XX"

# A forgotten transaction or a lock that never comes must end in an error that callers know, not in a hang.
POSTGRES_OPTIONS = "-c lock_timeout=10s -c idle_in_transaction_session_timeout=60s -c timezone=UTC"
POSTGRES_CONNECT = {
    "connect_timeout": 5,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "application_name": "bitmill",
}
READ_OPTIONS = f"{POSTGRES_OPTIONS} -c default_transaction_read_only=on"


class Database:
    """Pools of connections. Safe to share between threads; after a fork or in a new process make a new one."""

    def __init__(self, url: str, *, pool_size: int = 10, pool_timeout: float = 5.0) -> None:
        """Connects at the first use. pool_size: connections that write, and on PostgreSQL as many that only read.

        All that were opened are kept: a server's process for each that opens under load would cost more than the query.
        """
        parsed = make_url(url)
        pool: dict[str, Any] = {
            "pool_size": pool_size,
            "max_overflow": 0,
            "pool_timeout": pool_timeout,
            "pool_use_lifo": True,
        }
        if parsed.get_backend_name() == "sqlite":
            self._engine = self._reader = _sqlite_engine(parsed, pool)
        else:
            arguments = {**POSTGRES_CONNECT, "options": POSTGRES_OPTIONS}
            self._engine = create_engine(parsed, connect_args=arguments, **pool)
            # A statement of its own transaction, as each is at READ COMMITTED anyway: without BEGIN and COMMIT.
            arguments = {**POSTGRES_CONNECT, "options": READ_OPTIONS}
            self._reader = create_engine(parsed, connect_args=arguments, isolation_level="AUTOCOMMIT", **pool)
            liveness = Liveness()
            liveness.watch(self._engine)
            liveness.watch(self._reader)

    @contextmanager
    def transaction(self) -> Iterator[Repository]:
        """Commits on a clean exit, rolls back on an exception.

        Raises StorageUnavailableError where the database does not answer, is locked for too long or is full; whether
        a lost COMMIT took effect is then unknown, which is what idempotency keys and lease tokens are for.
        """
        with _unavailable(), self._engine.begin() as connection:
            yield Repository(connection)

    def reserve_blob(self, sha256: str) -> None:
        """Commits that a row will refer to a blob soon, see `Repository.reserve_blob`."""
        with self.transaction() as repository:
            repository.reserve_blob(sha256)

    @contextmanager
    def reading(self) -> Iterator[Repository]:
        """Only reads: on SQLite it takes no writer's lock; PostgreSQL refuses a write in it.

        On PostgreSQL each statement sees what was committed when it began.
        """
        with _unavailable(), self._reader.connect() as connection:
            connection.execution_options(**{READ_ONLY: True})
            with connection.begin():
                yield Repository(connection)

    @contextmanager
    def snapshot(self) -> Iterator[Repository]:
        """Only reads, and all its statements see the same moment; for what reads much, row by row."""
        with _unavailable(), self._engine.connect() as connection:
            connection.execution_options(**{READ_ONLY: True})
            if connection.dialect.name == "postgresql":
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                yield Repository(connection)

    def ping(self) -> None:
        """Raises StorageUnavailableError unless the database answers a query."""
        with _unavailable(), self._reader.connect() as connection:
            connection.execution_options(**{READ_ONLY: True})
            connection.execute(text("SELECT 1"))

    def upgrade(self, revision: str = "head") -> None:
        """Brings the schema up to a revision; several processes may call it at once, one does the work."""
        self._create_folder()
        with _unavailable(), self._engine.begin() as connection:
            command.upgrade(_alembic_config(connection), revision)

    def downgrade(self, revision: str) -> None:
        """Takes the schema back to a revision; `base` removes every table and all data."""
        with _unavailable(), self._engine.begin() as connection:
            command.downgrade(_alembic_config(connection), revision)

    def dispose(self) -> None:
        """Closes every idle connection; the object stays usable."""
        self._engine.dispose()
        self._reader.dispose()

    def _create_folder(self) -> None:
        if self._engine.dialect.name == "sqlite" and self._engine.url.database:
            Path(self._engine.url.database).parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def _unavailable() -> Iterator[None]:
    """Turns the driver's "does not answer" into the store's error; other database errors are ours and stay."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        raise StorageUnavailableError("The database", _first_line(error)) from error
    except DBAPIError as error:
        if not (error.connection_invalidated or _server_failed(error)):
            raise
        raise StorageUnavailableError("The database", _first_line(error)) from error


def _server_failed(error: DBAPIError) -> bool:
    """Whether the error is about the database's files, not about our statement."""
    # SQLite says that a file is corrupt with the base class itself, as no other error. PostgreSQL has a class of codes
    # for what it did not foresee: a damaged file, or one that may not grow.
    state = getattr(error.orig, "sqlstate", None) or ""
    return type(error) is DatabaseError or state.startswith(POSTGRES_INTERNAL_CLASS)


def _first_line(error: Exception) -> str:
    original = getattr(error, "orig", None) or error
    lines = str(original).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(original).__name__


def _alembic_config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _sqlite_engine(url: URL, pool: dict[str, Any]) -> Engine:
    if url.database in {None, "", ":memory:"}:
        raise ValueError("An SQLite database must be a file: connections do not share one in memory")
    engine = create_engine(url, connect_args={"timeout": SQLITE_BUSY_SECONDS}, **pool)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver's own transaction control would begin late and deferred; `_begin_sqlite` does it instead.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA journal_mode=WAL")
    # An accepted job survives a power cut: every commit reaches the disk.
    connection.execute("PRAGMA synchronous=FULL")


def _begin_sqlite(connection: Connection) -> None:
    read_only = connection.get_execution_options().get(READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
