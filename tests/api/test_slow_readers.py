"""Readers that hardly read: 50 downloads at a byte a second and streams that nobody empties cost little memory, and
everybody else is still answered.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from api.settings import ApiSettings
from store.artifacts import ArtifactStore
from store.jobs import NewArtifact
from store.session import Database
from tests.conformance.samples import submit_and_claim
from tests.servers import free_port

READERS = 50
STREAMS = 30
FILE_BYTES = 64 * 1024 * 1024
# A piece of the file on its way and one in the connection's buffers; whole files would be 64 MB each.
BYTES_PER_READER = 4 * 1024 * 1024


@contextmanager
def api_process(settings: ApiSettings) -> Iterator[tuple[int, psutil.Process]]:
    """Runs the API in a process of its own, whose memory can be measured; yields its port and the process."""
    port = free_port()
    variables = {
        "BITMILL_DATABASE_URL": settings.database_url,
        "BITMILL_DATA_DIR": str(settings.data_dir),
        "BITMILL_CACHE_DIR": str(settings.cache_dir),
        "BITMILL_STREAM_HEARTBEAT_SECONDS": "0.05",
    }
    command = [sys.executable, "-m", "uvicorn", "--factory", "api.app:create_app", "--port", str(port)]
    with subprocess.Popen([*command, "--log-level", "warning"], env={**os.environ, **variables}) as popen:
        try:
            deadline = time.monotonic() + 60
            while not _ready(port):
                assert popen.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield port, psutil.Process(popen.pid)
        finally:
            popen.kill()


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def large_file(settings: ApiSettings, tmp_path: Path) -> str:
    """The path of a published file that is large enough for a reader to hold much."""
    database = Database(settings.database_url)
    path = tmp_path / "large"
    path.write_bytes(os.urandom(1024) * (FILE_BYTES // 1024))
    sha256, size = ArtifactStore.from_settings(settings, database.reserve_blob).put_file(path)
    job = submit_and_claim(database)
    new = NewArtifact(name="model.safetensors", sha256=sha256, size_bytes=size, media_type="application/octet-stream")
    with database.transaction() as repository:
        repository.succeed(job.id, job.lease_token, [new])
        [artifact] = repository.list_artifacts(job.id)
    database.dispose()
    return f"/v1/jobs/{job.id}/artifacts/{artifact.id}/content"


def open_reader(port: int, path: str) -> socket.socket:
    """Sends a request and reads nothing; the kernel takes as little as it can."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    return connection


def test_slow_readers_hold_little_and_hold_nobody_up(settings: ApiSettings, large_file: str):
    """Memory grows with the number of readers, not with what they were promised."""
    with api_process(settings) as (port, process), ExitStack() as opened:
        client = opened.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30))
        assert client.get(large_file, headers={"Range": "bytes=0-99"}).status_code == 206
        before = process.memory_info().rss
        readers = [opened.enter_context(open_reader(port, large_file)) for _ in range(READERS)]
        for _ in range(STREAMS):
            opened.enter_context(open_reader(port, "/v1/events/stream"))
        for _ in range(4):
            for reader in readers:
                assert reader.recv(1)
            for _ in range(5):
                assert client.get("/v1/jobs").status_code == 200
            time.sleep(1)
        grown = process.memory_info().rss - before
        assert grown < (READERS + STREAMS) * BYTES_PER_READER, f"{grown:,} bytes"
        with client.stream("GET", large_file) as whole:
            assert sum(len(piece) for piece in whole.iter_raw()) == FILE_BYTES
