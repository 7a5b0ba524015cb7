"""Holds a claimed job: renews its lease, writes what happens in it, and notices a cancel or the loss of the claim.

One thread does all database writing while the job runs, so that neither a slow nor an absent database holds up the
engine. Whether the lease still stands is a question of elapsed time, never of a thread that may itself be stuck.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from store.errors import LeaseLostError, StorageUnavailableError
from store.jobs import Job, JobProgress, JobState, Stage
from store.repository import Repository
from store.session import Database
from worker.errors import AttemptStoppedError, StopReason, overdue
from worker.joblog import JobLog
from worker.journal import Journal
from worker.settings import WorkerSettings

FINISH_PAUSE_SECONDS = 1.0
"""Between tries to write the last transition while the database does not answer."""


def lease_clock() -> float:
    """Returns seconds that go on while the machine sleeps, where the system has such a clock; the lease does too."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def _due_at(job: Job) -> float | None:
    """Returns the `lease_clock()` of a just claimed job's deadline, never early; this machine's date is not asked."""
    if job.deadline_at is None or job.heartbeat_at is None:
        return None
    return lease_clock() + (job.deadline_at - job.heartbeat_at).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a heartbeat writes."""

    stage: Stage
    progress: JobProgress


class Lease:
    """The claim on one job. `begin` starts the renewing thread, `end` stops it; `finish` writes the last transition."""

    def __init__(
        self,
        database: Database,
        job: Job,
        settings: WorkerSettings,
        claimed_at: float,
        on_stage: Callable[[Stage], None] = lambda _: None,
    ) -> None:
        """claimed_at: `lease_clock()` before the claim was sent, so that we never believe in a lease that is over.

        on_stage: is told of every stage that begins.
        """
        self.job = job
        self.journal = Journal(job.resolved, JobLog(settings.folder_names))
        self._database = database
        self._settings = settings
        self._renewed_at = claimed_at
        self._due_at = _due_at(job)
        self._snapshot = Snapshot(stage=Stage.PREFLIGHT, progress=JobProgress())
        self._written: Snapshot | None = None
        self._entered: Stage | None = None
        self._on_stage = on_stage
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._cancel = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"lease-{job.id}", daemon=True)
        self._log = structlog.get_logger().bind(job_id=job.id, attempt=job.attempt)

    def begin(self) -> None:
        """Starts renewing."""
        self._thread.start()

    def end(self) -> None:
        """Stops renewing; the lease stands until it expires or `finish` writes the last transition."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(self._settings.fence_seconds)

    @property
    def cancel_requested(self) -> bool:
        """Whether a user asked for the job's end."""
        return self._cancel.is_set()

    @property
    def overdue(self) -> bool:
        """Whether the job's deadline has passed, by what the database said was left of it at the claim."""
        return self._due_at is not None and lease_clock() >= self._due_at

    def go_on(self) -> None:
        """Raises LeaseLostError, AttemptStoppedError after a cancel, AttemptFailedError past the deadline."""
        self.require()
        if self.cancel_requested:
            raise AttemptStoppedError(StopReason.CANCEL)
        if self.overdue:
            raise overdue(self.job)

    @property
    def lost(self) -> bool:
        """Whether the claim is gone, or may be: nothing more may be done in its name, and that stays so."""
        if self._silent_seconds() > self._settings.fence_seconds:
            self._lost.set()
        return self._lost.is_set()

    def require(self) -> None:
        """Raises LeaseLostError where the claim is gone."""
        if self.lost:
            raise LeaseLostError(self.job.id, self.job.lease_token)

    @property
    def snapshot(self) -> Snapshot:
        """Returns how far the job is."""
        return self._snapshot

    def advance(self, progress: JobProgress) -> None:
        """Notes how far the job is; the next heartbeat writes it."""
        self._snapshot = replace(self._snapshot, progress=progress)

    def enter(self, stage: Stage) -> None:
        """Notes that a stage begins."""
        if stage is not self._entered:
            self._entered = stage
            self._snapshot = replace(self._snapshot, stage=stage)
            self._on_stage(stage)
            self.journal.record("stage_started", {"stage": stage.value})

    def finish(self, transition: Callable[[Repository], Job]) -> Job:
        """Writes what waits and then the last transition, in one transaction; tries until that works or the lease ends.

        Returns the job as the transition left it. Raises LeaseLostError where the job is no longer ours; nothing was
        written then.
        """
        self.end()
        while True:
            self.require()
            try:
                with self._database.transaction() as repository:
                    self.journal.waiting().write(repository, self.job)
                    job = transition(repository)
            except StorageUnavailableError as error:
                self._log.warning("finish_delayed", reason=str(error))
                time.sleep(FINISH_PAUSE_SECONDS)
            else:
                return job

    def _silent_seconds(self) -> float:
        return lease_clock() - self._renewed_at

    def _run(self) -> None:
        while not self._lost.is_set():
            try:
                self._look()
            except LeaseLostError:
                self._log.warning("lease_lost")
                self._lost.set()
            except StorageUnavailableError as error:
                self._log.warning(
                    "heartbeat_failed", reason=str(error), silent_seconds=round(self._silent_seconds(), 1)
                )
            if self._ended.wait(self._settings.poll_seconds):
                return

    def _look(self) -> None:
        batch = self.journal.waiting()
        changed = self._snapshot != self._written or batch.events or batch.linears or batch.recalled or batch.resolved
        if changed or self._silent_seconds() >= self._settings.heartbeat_seconds:
            self._beat()
        else:
            with self._database.reading() as repository:
                self._notice(repository.get_job(self.job.id))

    def _beat(self) -> None:
        sent_at = lease_clock()
        snapshot, batch = self._snapshot, self.journal.waiting()
        with self._database.transaction() as repository:
            job = repository.heartbeat(
                self.job.id,
                self.job.lease_token,
                stage=snapshot.stage,
                progress=snapshot.progress,
                lease_seconds=self._settings.lease_seconds,
            )
            batch.write(repository, self.job)
        self.journal.forget(batch)
        self._renewed_at = sent_at
        self._written = snapshot
        self._notice(job)

    def _notice(self, job: Job) -> None:
        if job.lease_token != self.job.lease_token or job.state not in {JobState.RUNNING, JobState.CANCELLING}:
            raise LeaseLostError(self.job.id, self.job.lease_token)
        if job.state is JobState.CANCELLING:
            self._cancel.set()
