"""Transactions, and what a database that does not answer looks like."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import SQLAlchemyError

from store.errors import StorageUnavailableError
from store.jobs import JobFilter
from store.session import Database
from tests.conformance.samples import new_job, submit
from tests.servers import free_port


def test_ping_and_reading(database: Database) -> None:
    """A database that answers says so, and reading sees what was committed."""
    database.ping()
    job = submit(database)
    with database.reading() as repository:
        assert repository.get_job(job.id) == job


def test_reading_does_not_wait_for_a_writer(database: Database) -> None:
    """While another connection is in the middle of a write, a reader sees the last commit at once."""
    submit(database)
    with database.transaction() as writer:
        job = writer.list_jobs(None, JobFilter(), 1)[0]
        writer.request_cancel(job.id)
        with database.reading() as reader:
            assert reader.get_job(job.id) == job


def test_unreachable_database_is_unavailable() -> None:
    """A server that is not there is StorageUnavailableError for every use, not a driver's error."""
    database = Database(f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/none")
    with pytest.raises(StorageUnavailableError):
        database.ping()
    with pytest.raises(StorageUnavailableError), database.transaction() as repository:
        repository.queued_counts()
    database.dispose()


def test_silent_database_is_unavailable() -> None:
    """A server that accepts connections and says nothing is given up after the connection timeout."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        database = Database(f"postgresql+psycopg://nobody@127.0.0.1:{listener.getsockname()[1]}/none?connect_timeout=1")
        with pytest.raises(StorageUnavailableError):
            database.ping()
        database.dispose()


def test_terminated_connection_is_unavailable_once(postgres_url: str) -> None:
    """Losing the connection in a transaction is StorageUnavailableError, and the next transaction works."""
    database = Database(postgres_url)
    submit(database)
    with pytest.raises(StorageUnavailableError):
        _lose_connection(database, postgres_url)
    with database.transaction() as repository:
        assert repository.queued_counts() == {"default": 1}
    database.dispose()


def test_a_connection_that_died_at_rest_is_replaced(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody hears of it: one that has not answered for a while is asked before it is used, to write and to read."""
    monkeypatch.setattr("store.liveness.TRUSTED_SECONDS", 0.0)
    database = Database(postgres_url)
    job = submit(database)
    for _ in range(2):
        with database.reading() as repository:
            assert repository.get_job(job.id) == job
        _terminate_others(postgres_url)
        submit(database)
    database.dispose()


def test_one_dead_connection_puts_all_to_the_question(postgres_url: str) -> None:
    """When one to write was lost, one to read that answered a moment ago is asked as well."""
    database = Database(postgres_url)
    job = submit(database)
    with database.reading() as repository:
        assert repository.get_job(job.id) == job
    with pytest.raises(StorageUnavailableError):
        _lose_connection(database, postgres_url)
    with database.reading() as repository:
        assert repository.get_job(job.id) == job
    database.dispose()


def test_a_reader_writes_nothing(postgres_url: str) -> None:
    """PostgreSQL refuses a write among reads, also in the statement's own transaction."""
    database = Database(postgres_url)
    job = submit(database)
    with pytest.raises(SQLAlchemyError, match="read-only"), database.reading() as repository:
        repository.request_cancel(job.id)
    with pytest.raises(SQLAlchemyError, match="read-only"), database.reading() as repository:
        repository.add_job(new_job())
    database.dispose()


def _lose_connection(database: Database, url: str) -> None:
    with database.transaction() as repository:
        _terminate_others(url)
        repository.queued_counts()


def _terminate_others(url: str) -> None:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    statement = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(statement)


def test_exhausted_pool_is_unavailable(database_url: str) -> None:
    """Waiting for a connection ends after the pool's timeout."""
    database = Database(database_url, pool_size=2, pool_timeout=0.2)
    with database.reading(), database.reading(), pytest.raises(StorageUnavailableError):
        database.ping()
    database.dispose()


def test_sqlite_survives_many_writers(sqlite_url: str) -> None:
    """Threads that all write wait for each other and all succeed."""
    database = Database(sqlite_url, pool_size=8)
    start = threading.Barrier(8)
    failures: list[Exception] = []

    def write() -> None:
        start.wait()
        try:
            for _ in range(5):
                submit(database)
        except (SQLAlchemyError, StorageUnavailableError) as error:
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with database.reading() as repository:
        assert repository.queued_counts() == {"default": 40}
    database.dispose()


def test_sqlite_is_set_up_to_survive(sqlite_url: str) -> None:
    """Write-ahead log, foreign keys, and a commit that is on the disk."""
    database = Database(sqlite_url)
    with database._engine.connect() as connection:
        found = {name: connection.execute(text(f"PRAGMA {name}")).scalar_one() for name in PRAGMAS}
    assert found == PRAGMAS
    database.dispose()


PRAGMAS = {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2, "busy_timeout": 15000}


def test_sqlite_in_memory_is_refused() -> None:
    """Connections would each have a database of their own."""
    with pytest.raises(ValueError, match="file"):
        Database("sqlite://")


def test_corrupt_sqlite_file_is_an_error(tmp_path: Path) -> None:
    """A file that is no database is not taken for an empty one."""
    path = tmp_path / "bitmill.db"
    path.write_bytes(b"this is no database" * 100)
    database = Database(f"sqlite:///{path}")
    with pytest.raises((SQLAlchemyError, StorageUnavailableError)):
        database.upgrade()
    database.dispose()


@pytest.mark.parametrize("database", ["postgres_url", "sqlite_url"])
def test_a_snapshot_sees_one_moment(database: str, request: pytest.FixtureRequest) -> None:
    """What is committed while it reads is seen by the next one."""
    here = Database(request.getfixturevalue(database))
    here.upgrade()
    with here.snapshot() as repository:
        before = repository.queued_counts()
        submit(here)
        assert repository.queued_counts() == before == {}
    with here.snapshot() as repository:
        assert repository.queued_counts() == {"default": 1}
    here.dispose()
