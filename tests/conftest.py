"""Fixtures that every folder of tests may use: fresh databases, a Redis, an S3 bucket. See tests/servers.py."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import pytest
import redis
from hypothesis import HealthCheck, settings

from core.threads import wait_briefly
from store.session import Database
from tests.servers import (
    PostgresServer,
    RedisServer,
    S3Server,
    ServerError,
    postgres_server,
    redis_server,
    s3_server,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Threads that spin would keep the cores from the other processes that run tests.
wait_briefly()
# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the whole session."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_template(postgres: PostgresServer) -> Iterator[str]:
    """The name of a database with the newest schema and no rows, to be copied."""
    with postgres.database() as url:
        database = Database(url)
        database.upgrade()
        database.dispose()
        yield url.rsplit("/", 1)[1].partition("?")[0]


@pytest.fixture
def postgres_url(postgres: PostgresServer, migrated_template: str) -> Iterator[str]:
    """The URL of a PostgreSQL database of the test's own, newest schema, no rows."""
    with postgres.database(template=migrated_template) as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of an SQLite database of the test's own, newest schema, no rows."""
    url = f"sqlite:///{tmp_path}/bitmill.db"
    database = Database(url)
    database.upgrade()
    database.dispose()
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database of the newest schema: the test runs once on each kind."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An open, empty database of the newest schema: the test runs once on each kind."""
    opened = Database(database_url, pool_size=20, pool_timeout=30)
    yield opened
    opened.dispose()


@pytest.fixture(scope="session")
def _session_redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    named = os.environ.get("BITMILL_TEST_REDIS_URL")
    if named and "PYTEST_XDIST_WORKER" in os.environ:
        raise ServerError("Tests empty the Redis of BITMILL_TEST_REDIS_URL: name none, or run them in one process.")
    if named:
        yield named
        return
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture
def redis_url(_session_redis_url: str) -> str:
    """The URL of an emptied Redis database."""
    client = redis.Redis.from_url(_session_redis_url)
    client.flushdb()
    client.close()
    return _session_redis_url


@pytest.fixture
def private_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis server of the test's own, which it may stop and start."""
    with redis_server(tmp_path) as server:
        yield server


@dataclass(frozen=True, slots=True)
class Bucket:
    """An empty bucket. url: as for BITMILL_ARTIFACTS_URL."""

    url: str
    endpoint: str
    environment: dict[str, str]


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """An S3 server for the whole session."""
    with s3_server() as server:
        yield server


@pytest.fixture
def bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket of the test's own; the credentials for it are in the environment."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    name = f"test-{uuid.uuid4().hex}"
    httpx.put(f"{s3.endpoint}/{name}").raise_for_status()
    return Bucket(f"s3://{name}/artifacts", s3.endpoint, s3.environment)
