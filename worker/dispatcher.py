"""Every few seconds: takes jobs back from silent workers, wakes workers for what waits, removes what is over.

One runs in every worker process; they need not agree on anything, since the database decides every claim.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

import structlog
from celery import Celery
from kombu import Connection
from kombu.exceptions import KombuError, OperationalError

from store import filesystem_broker
from store.errors import NotFoundError, StorageUnavailableError
from store.sweep import sweep_blobs
from worker.registration import Registration
from worker.retention import apply_retention
from worker.services import Services
from worker.trash import empty_trash
from worker.workfolder import WorkFolder, job_ids

TIDY_EVERY = 5
"""Sweeps between two looks at the work folders."""
FORGET_SECONDS = 86_400.0
"""How long a worker that fell silent is still shown."""
FREE_EVERY = 30
"""Sweeps between two looks for blobs that nothing refers to."""


def waiting_messages(connection: Connection, queue: str) -> int:
    """Returns how many messages of a queue nobody has taken yet."""
    channel: Any = connection.channel()
    try:
        return int(channel.queue_declare(queue=queue, passive=True).message_count)
    except connection.channel_errors:
        return 0  # Redis forgets an empty queue
    finally:
        channel.close()


class Dispatcher:
    """A thread of the worker process, from `start` to `stop`."""

    def __init__(self, services: Services, app: Celery, queue_classes: Sequence[str]) -> None:
        """queue_classes: those that this worker serves."""
        self._services = services
        self._app = app
        self._queue_classes = queue_classes
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)
        self._stuck_since: float | None = None
        self._received = 0
        self._registration = Registration(services, queue_classes)
        self._registered_at = -math.inf
        self._log = structlog.get_logger().bind(worker_id=services.worker_id)

    def start(self) -> None:
        """Starts sweeping."""
        self._thread.start()

    def stop(self) -> None:
        """Stops sweeping; returns once no sweep is under way."""
        self._stopped.set()
        self._services.work_done.set()
        if self._thread.is_alive():
            self._thread.join(self._services.settings.fence_seconds)
        self._sign_off()

    def register(self) -> None:
        """Says that this worker lives, every heartbeat; takes from there whether it shall drain."""
        now = time.monotonic()
        if now - self._registered_at >= self._services.settings.heartbeat_seconds:
            self._registration.renew()
            self._registered_at = now

    def sweep(self) -> None:
        """Takes back expired leases, ends overdue jobs and wakes workers. Raises StorageUnavailableError."""
        with self._services.database.transaction() as repository:
            rescued = repository.rescue_expired()
            overdue = repository.fail_overdue()
        if rescued:
            self._log.warning("leases_expired", job_ids=rescued)
        if overdue:
            self._log.warning("deadlines_exceeded", job_ids=overdue)
        with self._services.database.reading() as repository:
            counts = repository.queued_counts(self._services.capability)
        woken = [self._wake(queue_class, counts.get(queue_class, 0)) for queue_class in self._queue_classes]
        self._end_if_stuck(work_waits=any(woken))

    def tidy(self) -> None:
        """Removes the work folders of jobs that are over, and old files of the filesystem broker."""
        root = self._services.settings.work_root
        empty_trash(root)
        with self._services.database.transaction() as repository:
            repository.forget_workers(FORGET_SECONDS)
            repository.remove_expired_sessions()
        for job_id in job_ids(root):
            if self._is_over(job_id):
                WorkFolder(root, job_id).remove()
        if self._services.settings.broker_url.startswith("filesystem:"):
            filesystem_broker.sweep(self._services.settings.broker_dir)

    def free_blobs(self) -> None:
        """Removes the bytes that deleted jobs and lost uploads left in the object store."""
        grace = self._services.settings.blob_grace_seconds
        removed = sweep_blobs(self._services.database, self._services.artifacts, older_than_seconds=grace)
        if removed:
            self._log.info("blobs_removed", count=removed)

    def _run(self) -> None:
        try:
            self._keep_sweeping()
        finally:
            if not self._stopped.is_set():
                # A worker that no longer sweeps would look alive; its process manager starts a whole one.
                self._log.error("dispatcher_died")
                os.kill(os.getpid(), signal.SIGTERM)

    def _keep_sweeping(self) -> None:
        sweeps = 0
        while not self._stopped.is_set():
            try:
                self.register()
                self.sweep()
                if sweeps % TIDY_EVERY == 0:
                    self.tidy()
                if sweeps % FREE_EVERY == 0:
                    apply_retention(self._services)
                    self.free_blobs()
            except StorageUnavailableError as error:
                self._log.warning("sweep_failed", reason=str(error))
            sweeps += 1
            self._services.work_done.wait(self._services.settings.sweep_seconds)
            self._services.work_done.clear()

    def _sign_off(self) -> None:
        try:
            self._registration.remove()
        except StorageUnavailableError as error:
            self._log.warning("sign_off_failed", reason=str(error))

    def _wake(self, queue_class: str, eligible: int) -> bool:
        """Keeps as many wake-ups outstanding as this worker could use; other workers look after themselves.

        Returns whether this worker should hear of work by now.
        """
        free = self._services.slots.free
        if eligible == 0 or free == 0 or self._services.drain.requested:
            return False
        outstanding = self._outstanding(queue_class)
        if outstanding is None:
            return False
        missing = min(eligible, free + 1) - outstanding
        return all(self._services.waker.wake(queue_class) for _ in range(missing))

    def _outstanding(self, queue_class: str) -> int | None:
        """Returns how many wake-ups lie in the broker unread; None where it does not answer."""
        try:
            with self._app.connection_for_read() as connection:
                return waiting_messages(connection, queue_class)
        except (KombuError, OperationalError, OSError) as error:
            self._log.warning("broker_unavailable", reason=str(error))
            return None

    def _end_if_stuck(self, *, work_waits: bool) -> None:
        """Ends a process that receives nothing while the broker takes wake-ups: its consumer is dead (celery#10302)."""
        received = self._services.slots.received
        now = time.monotonic()
        if not work_waits:
            self._stuck_since = None
        elif self._stuck_since is None or received != self._received:
            self._stuck_since, self._received = now, received
        elif now - self._stuck_since > self._services.settings.idle_exit_seconds:
            self._log.error("consumer_dead", idle_seconds=round(now - self._stuck_since))
            os.kill(os.getpid(), signal.SIGTERM)
            self._stuck_since = None

    def _is_over(self, job_id: str) -> bool:
        try:
            with self._services.database.reading() as repository:
                return repository.get_job(job_id).state.terminal
        except NotFoundError:
            return True
