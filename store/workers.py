"""What workers say of themselves, and which of them could take a job: plain values, no SQL."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

LIVE_SECONDS = 45.0
"""A worker that said nothing for so long counts as gone; it says something every ten seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """What a worker's jobs can have. device: cpu or cuda. memory_bytes: of the machine or of its control group."""

    device: str
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a job must find on a worker; None: anything will do."""

    device: str | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFacts:
    """What does not change while a worker process lives. slots: jobs at a time."""

    id: str
    hostname: str
    pid: int
    engine_version: str
    device_name: str
    capability: Capability
    slots: int
    queue_classes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A registered worker. live: it was heard of within LIVE_SECONDS. busy: jobs that it holds now.

    drain_requested_at: since when it shall take no more jobs. jobs: ids of those held jobs that the reader may see.
    """

    facts: WorkerFacts
    live: bool
    busy: int
    jobs: tuple[str, ...]
    registered_at: datetime
    heartbeat_at: datetime
    drain_requested_at: datetime | None

    @property
    def takes_jobs(self) -> bool:
        """Whether it claims what comes."""
        return self.live and self.drain_requested_at is None


class ObstacleCode(StrEnum):
    """Why no worker could take a job."""

    NO_WORKER = "no_worker"
    WORKERS_DRAINING = "workers_draining"
    DEVICE_MISSING = "device_missing"
    MEMORY_TOO_SMALL = "memory_too_small"


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """Why a queued job waits in vain, in words that an operator can act on."""

    code: ObstacleCode
    message: str


def able(workers: Collection[Worker], queue_class: str, needs: Needs) -> tuple[tuple[Worker, ...], Obstacle | None]:
    """Returns the workers that could take such a job, and where there is none the first reason why."""
    serving = [worker for worker in workers if worker.live and queue_class in worker.facts.queue_classes]
    if not serving:
        return _nobody(ObstacleCode.NO_WORKER, f"No live worker serves the queue class {queue_class!r}.")
    taking = [worker for worker in serving if worker.takes_jobs]
    if not taking:
        return _nobody(ObstacleCode.WORKERS_DRAINING, f"Every worker of the queue class {queue_class!r} is draining.")
    fitting = [worker for worker in taking if needs.device in {None, worker.facts.capability.device}]
    if not fitting:
        return _nobody(ObstacleCode.DEVICE_MISSING, f"No worker of {queue_class!r} runs on {needs.device}.")
    needed = needs.memory_bytes or 0
    large = tuple(worker for worker in fitting if worker.facts.capability.memory_bytes >= needed)
    if not large:
        most = max(worker.facts.capability.memory_bytes for worker in fitting)
        message = f"The job needs {needed:,} bytes of memory; the largest worker of {queue_class!r} has {most:,}."
        return _nobody(ObstacleCode.MEMORY_TOO_SMALL, message)
    return large, None


def _nobody(code: ObstacleCode, message: str) -> tuple[tuple[Worker, ...], Obstacle]:
    return (), Obstacle(code=code, message=message)
