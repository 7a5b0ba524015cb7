"""What a worker process holds for its whole life: settings, database, object store, waker and its wish to end."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass, field

from core.configs.devices import device_kind
from store.artifacts import ArtifactStore
from store.ids import IdPrefix, new_id
from store.queue import Waker
from store.session import Database
from store.tracing import Tracing
from store.workers import Capability
from worker.drain import Drain
from worker.faults import Faults
from worker.machine import capability_of_this_machine
from worker.settings import WorkerSettings


class Slots:
    """Counts the wake-ups that this process works on and has worked on."""

    def __init__(self) -> None:
        """One slot, until the worker tells how many threads it has."""
        self._total = 1
        self._busy = 0
        self._received = 0
        self._lock = threading.Lock()

    def provide(self, total: int) -> None:
        """Sets how many jobs can run at a time."""
        self._total = total

    @property
    def total(self) -> int:
        """Returns how many jobs can run at a time."""
        return self._total

    @property
    def free(self) -> int:
        """Returns how many more jobs could run now."""
        return max(self._total - self._busy, 0)

    @property
    def received(self) -> int:
        """Returns how many wake-ups were ever received: a number that stands still tells of a dead consumer."""
        return self._received

    def __enter__(self) -> None:
        """Takes a slot."""
        with self._lock:
            self._busy += 1
            self._received += 1

    def __exit__(self, *_: object) -> None:
        """Gives it back."""
        with self._lock:
            self._busy -= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Made once per worker process. work_done is set when a slot becomes free, for the dispatcher to look at once."""

    settings: WorkerSettings
    database: Database
    artifacts: ArtifactStore
    waker: Waker
    worker_id: str
    capability: Capability
    slots: Slots
    drain: Drain = field(default_factory=Drain)
    faults: Faults = field(default_factory=Faults)
    tracing: Tracing = field(default_factory=Tracing)
    work_done: threading.Event = field(default_factory=threading.Event)


def open_services(settings: WorkerSettings) -> Services:
    """Returns the services of this process; nothing is connected before its first use."""
    database = Database(settings.database_url)
    return Services(
        settings=settings,
        database=database,
        artifacts=ArtifactStore.from_settings(settings, database.reserve_blob),
        waker=Waker(settings),
        worker_id=f"{socket.gethostname()}-{os.getpid()}-{new_id(IdPrefix.WORKER)}",
        capability=capability_of_this_machine(device_kind(settings.device)),
        slots=Slots(),
        faults=Faults(settings.test_faults, settings.test_faults_dir),
        tracing=Tracing(settings.otlp_endpoint, "bitmill-worker"),
    )
