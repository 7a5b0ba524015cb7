"""R14: many clients that hardly read. What they cost is bounded, and everybody else is served."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from contextlib import ExitStack

import pytest

from store.artifacts import READ_CHUNK_BYTES
from store.jobs import NewArtifact
from tests.fault.conftest import Deploy
from tests.fault.deployment import Deployment, wait_for
from tests.fault.test_surroundings import start_api

READERS = 50
STREAMS = 50
FILE_BYTES = 64 << 20
MOST_BYTES = READERS * 4 * READ_CHUNK_BYTES
"""A piece of the file on its way to each reader and what its connection and memory hold, and not the file for each."""
LEAVERS = 5
RESTLESS = {"BITMILL_STREAM_HEARTBEAT_SECONDS": "0.05"}
"""Streams that have something to say all the time, to readers that take nothing."""
POLLS = 40
POLL_SECONDS = 20.0
"""For the slowest of the polls, on a machine that does other things."""


@pytest.fixture
def published(deploy: Deploy) -> tuple[Deployment, str]:
    """A deployment with one job that has a large file, and the path of that file."""
    deployment = deploy()
    job = deployment.submit()
    sha256, size_bytes = deployment.services.artifacts.put_bytes(os.urandom(1 << 10) * (FILE_BYTES >> 10))
    file = NewArtifact(name="large.bin", sha256=sha256, size_bytes=size_bytes, media_type="application/octet-stream")
    with deployment.database.transaction() as repository:
        claimed = repository.claim("wrk", "default")
        assert claimed is not None
        repository.succeed(claimed.id, claimed.lease_token, [file])
        [artifact] = repository.list_artifacts(job.id)
    return deployment, f"/v1/jobs/{job.id}/artifacts/{artifact.id}/content"


def test_r14_readers_at_a_byte_a_second(published: tuple[Deployment, str]):
    """Fifty downloads and fifty streams that stand still: memory stays bounded, progress is still answered, and who
    reads gets the whole file.
    """
    deployment, path = published
    api, client = start_api(deployment, variables=RESTLESS)
    progress = f"{path.partition('/artifacts')[0]}/progress"
    client.get(progress).raise_for_status()
    assert client.get(path, headers={"Range": "bytes=0-99"}).status_code == 206
    before = api.process.memory_info().rss
    with ExitStack() as stack:
        port = client.base_url.port or 0
        readers = [stack.enter_context(open_request(port, path)) for _ in range(READERS)]
        for _ in range(STREAMS):
            stack.enter_context(open_request(port, "/v1/events/stream"))
        slowest = 0.0
        for _ in range(POLLS):
            started = time.monotonic()
            client.get(progress).raise_for_status()
            slowest = max(slowest, time.monotonic() - started)
            for reader in readers:
                assert reader.recv(1)
        assert api.process.memory_info().rss - before < MOST_BYTES
        assert slowest < POLL_SECONDS
        with client.stream("GET", path) as whole:
            digest = hashlib.sha256()
            for piece in whole.iter_raw():
                digest.update(piece)
            assert whole.headers["etag"] == f'"{digest.hexdigest()}"'
    client.close()


@pytest.mark.parametrize("whole", [False, True])
def test_r14_readers_that_leave(published: tuple[Deployment, str], *, whole: bool):
    """Who goes away in the middle of a file, or of the archive of all, leaves no file open in the service."""
    deployment, path = published
    api, client = start_api(deployment)
    wanted = f"{path.partition('/artifacts')[0]}/archive.zip" if whole else path

    def opened() -> int:
        return sum("/blobs/" in file.path for file in api.process.open_files())

    with ExitStack() as stack:
        for _ in range(LEAVERS):
            stack.enter_context(open_request(client.base_url.port or 0, wanted))
        wait_for(lambda: opened() == LEAVERS, lambda: f"{opened()} files are open")
    wait_for(lambda: opened() == 0, lambda: f"{opened()} files are still open")
    client.close()


def open_request(port: int, path: str) -> socket.socket:
    """Sends a request on a connection with hardly any room for the answer."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    connection.settimeout(30)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return connection
