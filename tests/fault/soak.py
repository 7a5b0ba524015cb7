"""R22: many jobs under a steady hail of faults. The seed decides which fault comes when, and whom it hits."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import redis

from store.errors import WrongStateError
from store.jobs import Job, JobState
from tests.fault.checker import check
from tests.fault.deployment import Deployment, wait_for
from tests.fault.processes import Forked

FAULT_EVERY_SECONDS = 2.0
WORKERS = 2
FROZEN_SECONDS = 1.0
# A fault every two seconds spends any honest budget; what is counted is checked all the same.
MAX_ATTEMPTS = 100
DEADLINES_SECONDS = (None, None, None, 3600, 1, 4)
"""One in three jobs may be too late, while it waits or while it runs."""


@dataclass(slots=True)
class Soak:
    """One run. Each fault is a method that takes a worker."""

    deployment: Deployment
    random: random.Random
    workers: list[Forked] = field(default_factory=list)
    happened: list[str] = field(default_factory=list)

    def run(self, jobs: int, seconds: float, undisturbed: Mapping[str, str]) -> list[Job]:
        """Submits the jobs over the time, faults all along; then lets everything end in peace and checks it."""
        submitted: list[Job] = []
        started = time.monotonic()
        next_fault = started + FAULT_EVERY_SECONDS
        while (elapsed := time.monotonic() - started) < seconds:
            self._keep_workers()
            while len(submitted) < min(jobs, int(jobs * elapsed / (0.8 * seconds)) + 1):
                submitted.append(self._submit(len(submitted)))
            if time.monotonic() >= next_fault:
                next_fault += FAULT_EVERY_SECONDS
                self._disturb(submitted)
            time.sleep(0.05)
        for worker in self.workers:
            worker.thaw()
        self._keep_workers()
        ended = [self.deployment.wait(job, seconds=300) for job in submitted]
        for job in ended:
            # The hail may kill one job twice in a row at one block, which nobody can tell from a job that kills.
            code = None if job.error is None else job.error.code
            assert job.state in {JobState.SUCCEEDED, JobState.CANCELLED} or code == "poison_job" or _too_late(job), job
        for worker in self.workers:
            worker.signal(signal.SIGTERM)
        for worker in self.workers:
            worker.wait(60)
        check(self.deployment, ended, undisturbed)
        return ended

    def _submit(self, number: int) -> Job:
        plan = {"block_seconds": self.random.choice([0.01, 0.05, 0.2])}
        job = self.deployment.submit(
            f"job-{number}",
            queue="default",
            max_attempts=MAX_ATTEMPTS,
            deadline_seconds=self.random.choice(DEADLINES_SECONDS),
            **plan,
        )
        self.deployment.services.waker.wake("default")
        return job

    def _keep_workers(self) -> None:
        """Starts anew what died, as a process manager does."""
        self.workers = [worker for worker in self.workers if worker.running]
        while len(self.workers) < WORKERS:
            self.workers.append(self.deployment.worker())

    def _disturb(self, submitted: list[Job]) -> None:
        faults: list[Callable[[list[Job]], None]] = [self.kill, self.kill_child, self.drain, self.freeze, self.cancel]
        if self.deployment.settings.broker_url.startswith("redis"):
            faults.append(self.forget)
        fault = self.random.choice(faults)
        self.happened.append(fault.__name__)
        fault(submitted)

    def kill(self, _: list[Job]) -> None:
        """Kill -9 of a worker."""
        self.random.choice(self.workers).kill()

    def kill_child(self, _: list[Job]) -> None:
        """Kill -9 of what works for one, if it has something."""
        for child in self.random.choice(self.workers).children():
            child.kill()

    def drain(self, _: list[Job]) -> None:
        """TERM, and now and then a second one."""
        worker = self.random.choice(self.workers)
        for _ in range(self.random.choice([1, 1, 2])):
            worker.signal(signal.SIGTERM)
        worker.wait(60)

    def freeze(self, _: list[Job]) -> None:
        """A pause that the lease outlives."""
        worker = self.random.choice(self.workers)
        worker.freeze()
        time.sleep(FROZEN_SECONDS)
        worker.thaw()

    def cancel(self, submitted: list[Job]) -> None:
        """A user who thinks better of the newest job."""
        # It may have ended by now.
        with suppress(WrongStateError):
            self.deployment.cancel(submitted[-1])

    def forget(self, _: list[Job]) -> None:
        """The broker loses everything."""
        client = redis.Redis.from_url(self.deployment.settings.broker_url)
        client.flushall()
        client.close()


def _too_late(job: Job) -> bool:
    """Whether a job has failed by its deadline, and not before it."""
    if job.error is None or job.error.code != "deadline_exceeded":
        return False
    return job.deadline_at is not None and job.finished_at is not None and job.finished_at >= job.deadline_at


def soak(deployment: Deployment, seed: int, jobs: int, seconds: float, undisturbed: Mapping[str, str]) -> Soak:
    """Runs one and returns what happened in it."""
    run = Soak(deployment, random.Random(seed))
    run.run(jobs, seconds, undisturbed)
    wait_for(lambda: not any(worker.running for worker in run.workers), "a worker is left")
    return run
