"""A real API on a free port for the tests, and a hand that does to its rows what a worker would."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

from api.app import create_app
from api.services import Services
from api.settings import ApiSettings
from store.jobs import Job, JobError, JobProgress, LinearRow, NewArtifact, Stage

START_SECONDS = 20
WORKER = "wrk_test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A running API. client: keeps its connections; its base URL is the service's."""

    services: Services
    client: httpx.Client

    def submit(self, **changes: object) -> dict[str, Any]:
        """Submits a job on the tiny model and returns it; changes: fields of the request."""
        response = self.client.post("/v1/jobs", json=job_request(**changes))
        assert response.status_code == 202, response.text
        job: dict[str, Any] = response.json()
        return job

    def claim(self) -> Job:
        """Claims the best queued job."""
        with self.services.database.transaction() as repository:
            job = repository.claim(WORKER, "default")
        assert job is not None
        return job

    def progress(self, job: Job, progress: JobProgress) -> Job:
        """Renews the lease with some progress."""
        with self.services.database.transaction() as repository:
            return repository.heartbeat(job.id, job.lease_token, stage=Stage.QUANTIZING, progress=progress)

    def record(self, job: Job, rows: Sequence[LinearRow]) -> None:
        """Stores solved linears."""
        with self.services.database.transaction() as repository:
            repository.record_linears(job.id, job.lease_token, rows)

    def fail(self, job: Job) -> Job:
        """Ends the job badly."""
        error = JobError(code="numerical_error", message="It broke.", retryable=False, hint="Mend it.")
        with self.services.database.transaction() as repository:
            return repository.fail(job.id, job.lease_token, error)

    def succeed(self, job: Job, files: dict[str, bytes]) -> Job:
        """Publishes files and ends the job well."""
        artifacts = []
        for name, content in files.items():
            sha256, size_bytes = self.services.artifacts.put_bytes(content)
            artifacts.append(
                NewArtifact(name=name, sha256=sha256, size_bytes=size_bytes, media_type="application/octet-stream")
            )
        with self.services.database.transaction() as repository:
            return repository.succeed(job.id, job.lease_token, artifacts, None, [])


def job_request(**changes: object) -> dict[str, Any]:
    """Returns a request that is accepted where the tiny model lies in the root `models`."""
    return {"model": {"source": "path", "path": "tiny", "root": "models"}, "group_size": 32, **changes}


@contextmanager
def serve(settings: ApiSettings, **headers: str) -> Iterator[Service]:
    """Runs the application under uvicorn until the context ends; headers: sent with every request."""
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run, name="uvicorn")
    thread.start()
    try:
        port = _wait_started(server, thread)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30) as client:
            yield Service(services=app.state.services, client=client)
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)
        assert not thread.is_alive()


def _wait_started(server: uvicorn.Server, thread: threading.Thread) -> int:
    deadline = time.monotonic() + START_SECONDS
    while not server.started:
        assert thread.is_alive(), "the service did not start"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port
