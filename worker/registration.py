"""Tells the database that this worker lives and what it has, and takes from there whether it shall drain."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from importlib.metadata import version

import structlog

from store.workers import WorkerFacts
from worker.machine import processor_name
from worker.services import Services


class Registration:
    """One worker's row. `renew` is called every heartbeat, `remove` when the worker ends in an orderly way."""

    def __init__(self, services: Services, queue_classes: Sequence[str]) -> None:
        """queue_classes: those that this worker serves."""
        self._services = services
        self._facts = WorkerFacts(
            id=services.worker_id,
            hostname=socket.gethostname(),
            pid=os.getpid(),
            engine_version=version("bitmill"),
            device_name=processor_name(),
            capability=services.capability,
            slots=services.slots.total,
            queue_classes=tuple(queue_classes),
        )
        self._log = structlog.get_logger().bind(worker_id=services.worker_id)

    def renew(self) -> None:
        """Writes a sign of life and follows what an operator asked for. Raises StorageUnavailableError."""
        with self._services.database.transaction() as repository:
            drain = repository.register_worker(self._facts)
        if drain != self._services.drain.held:
            self._log.info("worker_drains" if drain else "worker_resumes")
            self._services.drain.hold(held=drain)

    def remove(self) -> None:
        """Forgets this worker. Raises StorageUnavailableError."""
        with self._services.database.transaction() as repository:
            repository.remove_worker(self._services.worker_id)
