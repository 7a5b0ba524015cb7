"""Takes one claimed job to its end: fetch the inputs, run the child, upload, publish; or record why that failed.

Everything that it writes goes through the lease; once that is lost it kills its child and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import structlog

from core.errors import CoreError
from core.events import BlockQuantized, WarningRaised
from store.errors import LeaseLostError, StoreError, WrongStateError
from store.jobs import Attempt, Job, JobError, NewArtifact, Stage
from store.publications import NewPublication
from store.repository import Repository
from worker.checkpoints import CheckpointSender, restore
from worker.errors import (
    AttemptFailedError,
    AttemptStoppedError,
    Failure,
    StopReason,
    failure_from,
    judge,
    lost_here_before,
    poisoned,
    ran_out_of_memory,
    retryable,
)
from worker.faults import FaultPoint
from worker.inputs import Inputs
from worker.joblog import Level
from worker.lease import Lease
from worker.observer import Observer
from worker.process import ChildProcess
from worker.protocol import DatasetSpec, DownloadSpec, QuantizeSpec, Result
from worker.publish import upload
from worker.runner import ChildRunner
from worker.services import Services
from worker.tracing import AttemptTrace
from worker.workfolder import WorkFolder

THREADS_AFTER_OUT_OF_MEMORY = 1

Transition = Callable[[Repository], Job]


class Supervisor:
    """One claimed job. `run` returns when the claim has ended, in whatever way."""

    def __init__(self, services: Services, job: Job, claimed_at: float) -> None:
        """claimed_at: `lease_clock()` before the claim was sent."""
        self._services = services
        self._settings = services.settings
        self._job = job
        self._trace = AttemptTrace(services.tracing, job)
        self._lease = Lease(services.database, job, services.settings, claimed_at, self._trace.enter)
        self._folder = WorkFolder(services.settings.work_root, job.id)
        shared = services.settings.share_checkpoints
        self._sender = CheckpointSender(services, job, self._lease, self._folder) if shared else None
        self._observer = Observer(self._lease, self._folder.blocks, self._on_block)
        self._history: Sequence[Attempt] = ()
        self._log = structlog.get_logger().bind(job_id=job.id, attempt=job.attempt)

    def run(self) -> None:
        """Works the job and writes how it ended. Raises nothing that belongs to the job."""
        self._log.info("attempt_started", worker_id=self._services.worker_id)
        self._tell("attempt_started", worker=self._services.worker_id)
        self._lease.begin()
        job: Job | None = None
        try:
            job = self._lease.finish(self._ending())
        except LeaseLostError:
            self._log.warning("attempt_abandoned", reason="the lease is lost; nothing more is written")
            return
        finally:
            self._lease.end()
            self._trace.end(job)
        self._log.info("attempt_ended", state=job.state, code=None if job.error is None else job.error.code)
        if job.state.terminal:
            self._services.faults.hit(FaultPoint.PUBLISHED)
            self._folder.remove()

    def _on_block(self, event: BlockQuantized) -> None:
        self._trace.block(event)
        if self._sender:
            self._sender.add(event.block)

    def _tell(self, text: str, level: Level = "info", **fields: str | int) -> None:
        """Adds a line to the log that the job's owner reads."""
        self._lease.journal.log.add("worker", text, level, **fields)

    def _ending(self) -> Transition:
        """Does the work and returns the transition that is to be written; raises LeaseLostError where none may be."""
        try:
            result = self._attempt()
            return self._publish(self._upload(), result)
        except AttemptStoppedError as stop:
            return self._stop(stop.reason)
        except LeaseLostError:
            raise
        except Exception as error:  # noqa: BLE001 - the task's edge: the job gets the reason, the queue moves on
            return self._fail(error)

    def _attempt(self) -> Result:
        self._lease.enter(Stage.PREFLIGHT)
        self._history = self._counted_history()
        self._refuse_poison()
        self._observer.recall(self._earlier_warnings())
        self._folder.create()
        threads = THREADS_AFTER_OUT_OF_MEMORY if ran_out_of_memory(self._history) else None
        with Inputs(
            self._services,
            self._job,
            self._lease,
            self._folder,
            download=self._download,
            on_bytes=self._observer.fetched,
            go_on=self._stop_if_asked,
        ) as inputs:
            spec = inputs.spec(threads=threads)
            with self._checkpoints():
                result = self._run_child("worker.child", spec)
        self._lease.journal.resolve(result.resolved)
        return result

    @contextmanager
    def _checkpoints(self) -> Iterator[None]:
        """Fetches finished blocks that this machine lacks, and sends those that it finishes."""
        if self._sender is None:
            yield
            return
        fetched = restore(self._services, self._job, self._folder, self._stop_if_asked)
        if fetched:
            self._tell("checkpoints_fetched", blocks=fetched)
        self._sender.start()
        patience = 0.0
        try:
            yield
        except (AttemptFailedError, AttemptStoppedError) as error:
            # Another machine may go on with it: the last block should be there.
            cancelled = isinstance(error, AttemptStoppedError) and error.reason is StopReason.CANCEL
            patience = 0.0 if cancelled or self._services.drain.at_once else self._settings.stop_grace_seconds
            raise
        finally:
            self._sender.finish(patience)

    def _run_child(self, module: str, spec: QuantizeSpec | DownloadSpec | DatasetSpec) -> Result:
        network = not isinstance(spec, QuantizeSpec)
        environment = self._settings.child_environment(network=network)
        with ChildProcess(
            module,
            spec,
            environment=environment,
            folder=self._folder.path,
            log=self._log,
            on_text=partial(self._lease.journal.log.add, "child"),
        ) as child:
            self._log.info("child_started", module=module, child_pid=child.pid)
            self._tell("child_started", module=module)
            # A download reports no work, and the hub's library has time limits of its own.
            stall_limit = None if network else self._settings.stall_limit_seconds
            runner = ChildRunner(
                child,
                self._lease,
                self._services.drain,
                self._settings,
                on_line=self._observer.take,
                stall_limit_seconds=stall_limit,
            )
            return runner.run()

    def _download(self, spec: DownloadSpec | DatasetSpec) -> Result:
        self._lease.enter(Stage.DOWNLOADING)
        return self._run_child("worker.download", spec)

    def _upload(self) -> tuple[NewArtifact, ...]:
        self._lease.enter(Stage.UPLOADING)
        files = upload(
            self._services.artifacts,
            self._folder.artifact,
            tries=self._settings.upload_tries,
            go_on=self._go_on_uploading,
        )
        self._services.faults.hit(FaultPoint.UPLOADED)
        self._lease.enter(Stage.PUBLISHING)
        return files

    def _go_on_uploading(self) -> None:
        self._services.faults.hit(FaultPoint.UPLOADING)
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        self._lease.go_on()
        if self._services.drain.at_once:
            raise AttemptStoppedError(StopReason.DRAIN)

    def _publish(self, files: tuple[NewArtifact, ...], result: Result) -> Transition:
        def publish(repository: Repository) -> Job:
            job_id, token = self._job.id, self._job.lease_token
            try:
                job = repository.succeed(job_id, token, files, result.evaluation, self._observer.warnings)
            except WrongStateError:  # the user's cancel came first
                return repository.cancelled(job_id, token)
            place = job.spec.get("publish_to")
            if place is not None:
                repository.add_publication(NewPublication(job_id=job_id, owner_key_id=job.owner_key_id, **place))
            self._services.faults.hit(FaultPoint.PUBLISHING)
            return job

        return publish

    def _stop(self, reason: StopReason) -> Transition:
        job_id, token = self._job.id, self._job.lease_token
        if reason is StopReason.CANCEL:
            return lambda repository: repository.cancelled(job_id, token)
        return lambda repository: repository.release(job_id, token)

    def _fail(self, error: Exception) -> Transition:
        failure = failure_from(error)
        # What a child reported has its traceback in the child's own log lines.
        foreseen = isinstance(error, AttemptFailedError | CoreError | StoreError)
        self._log.warning("attempt_failed", code=failure.code, reason=failure.message, exc_info=not foreseen)
        self._tell("attempt_failed", "error", code=failure.code, reason=failure.message)
        verdict = judge(
            self._job_error(failure),
            self._history,
            base_seconds=self._settings.retry_base_seconds,
            cap_seconds=self._settings.retry_cap_seconds,
        )
        job_id, token, delay = self._job.id, self._job.lease_token, verdict.delay_seconds
        if delay is None:
            return lambda repository: repository.fail(job_id, token, verdict.error)
        return lambda repository: repository.release(
            job_id, token, verdict.error, delay_seconds=delay, count_failure=True
        )

    def _job_error(self, failure: Failure) -> JobError:
        snapshot = self._lease.snapshot
        quantizing = snapshot.stage is Stage.QUANTIZING
        under_way = snapshot.progress.blocks_done if quantizing else None
        return JobError(
            code=failure.code,
            message=failure.message,
            retryable=retryable(failure.code),
            hint=failure.hint,
            stage=snapshot.stage.value,
            block=under_way if failure.block is None else failure.block,
            linear=failure.linear,
            attempt=self._job.attempt,
        )

    def _counted_history(self) -> Sequence[Attempt]:
        """Returns the attempts that the job's failures count: a user's retry starts with a clean record."""
        with self._services.database.reading() as repository:
            attempts = repository.list_attempts(self._job.id)
        failed = [attempt for attempt in attempts if attempt.error is not None]
        return failed[len(failed) - min(self._job.failures, len(failed)) :]

    def _earlier_warnings(self) -> list[Mapping[str, Any]]:
        """Returns what earlier attempts warned of: their finished blocks are part of this result."""
        warnings: list[Mapping[str, Any]] = []
        after = 0
        with self._services.database.reading() as repository:
            while page := repository.list_events(self._job.id, after):
                warnings += [event.payload for event in page if event.kind == WarningRaised.kind]
                after = page[-1].seq
        return warnings

    def _refuse_poison(self) -> None:
        """Ends a job that took two workers down at one place, which only the attempts after them can see."""
        if len(self._history) < 2 or self._history[-1].error is None:  # noqa: PLR2004 - a pair
            return
        last = self._history[-1].error
        if lost_here_before(last, self._history[:-1]):
            error = poisoned(last)
            raise AttemptFailedError(
                Failure(code=error.code, message=error.message, hint=error.hint, block=error.block, linear=error.linear)
            )
