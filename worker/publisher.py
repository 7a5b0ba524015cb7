"""Brings finished artifacts to the model hub, one at a time, in a thread of its own beside the jobs.

A worker takes a publication under a lease, fetches the files, and lets a child process upload them; when it dies, the
lease runs out and another begins anew: a commit of the same files changes nothing on the hub.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import structlog

from store.errors import StorageUnavailableError, StoreError
from store.publications import RETRY_SECONDS, Publication
from store.vault import Vault
from worker.errors import Failure, failure_from
from worker.process import ChildProcess, EndOfOutput
from worker.protocol import FailureLine, Result, Tick, UploadSpec
from worker.services import Services

LEASE_SECONDS = 60.0
RENEW_SECONDS = 10.0
LOOK_SECONDS = 0.5
STOP_SECONDS = 10.0
FINAL = frozenset({"hub_refused", "hub_token_missing", "secret_key_required", "secret_unreadable", "not_found"})


class Publisher:
    """A thread of the worker process, from `start` to `stop`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._root = services.settings.data_dir / "publications" / services.worker_id
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._log = structlog.get_logger().bind(worker_id=services.worker_id)

    def start(self) -> None:
        """Starts looking for publications."""
        self._thread.start()

    def stop(self) -> None:
        """Stops; an upload under way is ended, and another worker begins it anew."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def round(self) -> bool:
        """Works one publication; returns whether there was one. Raises StorageUnavailableError."""
        with self._services.database.transaction() as repository:
            taken = repository.take_publication(LEASE_SECONDS)
        if taken is None:
            return False
        log = self._log.bind(publication_id=taken.id, job_id=taken.job_id, attempt=taken.attempts)
        ending = self._attempt(taken)
        if ending is None:
            log.warning("publication_left", reason="this worker ends, or lost the lease")
            return True
        self._end(taken, ending)
        log.info("publication_ended", reason=ending.message if isinstance(ending, Failure) else None)
        return True

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                busy = False
                try:
                    busy = self.round()
                except StorageUnavailableError as error:
                    self._log.warning("publisher_failed", reason=str(error))
                if not busy:
                    self._stopped.wait(self._services.settings.sweep_seconds)
        finally:
            if not self._stopped.is_set():
                self._log.error("publisher_died")
                os.kill(os.getpid(), signal.SIGTERM)

    def _attempt(self, taken: Publication) -> Result | Failure | None:
        """Returns how the attempt ended; None where it is not ours to say."""
        folder = self._root / taken.id
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return self._upload(taken, self._spec(taken, folder))
        except StorageUnavailableError:
            raise
        except (StoreError, OSError) as error:
            return failure_from(error)
        finally:
            shutil.rmtree(self._root, ignore_errors=True)

    def _spec(self, taken: Publication, folder: Path) -> UploadSpec | Failure:
        settings = self._services.settings
        with self._services.database.reading() as repository:
            token, files = repository.hub_token(taken.owner_key_id), repository.list_artifacts(taken.job_id)
        if token is None:
            return Failure(code="hub_token_missing", message="There is no hub token any more to upload with.")
        if not files:
            return Failure(code="not_found", message="The job has no files any more.")
        for file in files:
            place = folder / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            self._services.artifacts.fetch_to(file.sha256, place)
            self._hold(taken)
        return UploadSpec(
            repo=taken.repo,
            private=taken.private,
            folder=folder,
            endpoint=settings.hub_endpoint,
            token=Vault.from_settings(settings).open(token[0]),
            message=f"Add the result of Bitmill job {taken.job_id}",
            silence_seconds=settings.fence_seconds,
        )

    def _hold(self, taken: Publication) -> bool:
        with self._services.database.transaction() as repository:
            return repository.renew_publication(taken, LEASE_SECONDS)

    def _upload(self, taken: Publication, spec: UploadSpec | Failure) -> Result | Failure | None:
        if isinstance(spec, Failure):
            return spec
        # The plain way of large files: it works with any endpoint that speaks the hub's protocol.
        environment = {**self._services.settings.child_environment(network=True), "HF_HUB_DISABLE_XET": "1"}
        with ChildProcess(
            "worker.hub_upload", spec, environment=environment, folder=self._root, log=self._log, on_text=lambda _: None
        ) as child:
            return self._follow(taken, child)

    def _follow(self, taken: Publication, child: ChildProcess) -> Result | Failure | None:
        renewed_at = time.monotonic()
        ending: Result | Failure | None = None
        while True:
            line = child.receive(LOOK_SECONDS)
            match line:
                case EndOfOutput():
                    return ending or Failure(code="child_exited", message="The uploading process ended without a word.")
                case Result():
                    ending = line
                case FailureLine():
                    ending = Failure(code=line.code, message=line.message, hint=line.hint)
                case _:
                    child.send(Tick())
            if self._stopped.is_set():
                return None
            if time.monotonic() - renewed_at > RENEW_SECONDS:
                renewed_at = time.monotonic()
                if not self._hold(taken):
                    return None

    def _end(self, taken: Publication, ending: Result | Failure) -> None:
        failed = isinstance(ending, Failure)
        retry = None
        if isinstance(ending, Failure) and ending.code not in FINAL and taken.attempts <= len(RETRY_SECONDS):
            retry = float(RETRY_SECONDS[taken.attempts - 1])
        with self._services.database.transaction() as repository:
            repository.end_publication(
                taken,
                commit=ending.resolved["commit"] if isinstance(ending, Result) else None,
                error=f"{ending.code}: {ending.message}" if isinstance(ending, Failure) else None,
                retry_seconds=retry if failed else None,
            )
