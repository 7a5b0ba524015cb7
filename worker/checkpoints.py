"""Carries finished blocks by way of the object store: out while a job runs, in where another worker goes on with it.

Only packed blocks travel. What enters the next block is made again by one forward pass through the finished ones, which
is cheaper than moving it (docs/adr). Whether the blocks may be used is decided by the engine, by their fingerprint.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

import structlog

from core.checkpoint.durable import file_sha256
from core.checkpoint.record import Fingerprint, RecordedBlock, WorkRecord, block_file_name, read_record, write_record
from core.errors import ResumeRefusedError
from store.errors import BlobCorruptError, LeaseLostError, NotFoundError, StorageUnavailableError, StoreError
from store.jobs import Checkpoint, Job
from worker.faults import FaultPoint
from worker.lease import Lease
from worker.services import Services
from worker.workfolder import WorkFolder

RETRY_SECONDS = 2.0


class CheckpointSender:
    """Uploads blocks in a thread of its own, in order, each one's row after its bytes. One per attempt."""

    def __init__(self, services: Services, job: Job, lease: Lease, folder: WorkFolder) -> None:
        self._services = services
        self._job = job
        self._lease = lease
        self._blocks = folder.blocks
        self._waiting: deque[int] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=f"checkpoints-{job.id}", daemon=True)
        self._log = structlog.get_logger().bind(job_id=job.id, attempt=job.attempt)

    def start(self) -> None:
        """Starts waiting for blocks."""
        self._thread.start()

    def add(self, block: int) -> None:
        """Says that a block lies in the work folder, recorded."""
        with self._changed:
            self._waiting.append(block)
            self._changed.notify_all()

    def finish(self, patience_seconds: float) -> None:
        """Lets what waits be sent for so long, then ends; an upload that is under way by then is given up."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting or not self._thread.is_alive(), patience_seconds)
            self._stopped = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            while (block := self._next()) is not None:
                self._send_until_done(block)
        except (StoreError, ResumeRefusedError, OSError, IndexError) as error:
            # The artifact does not hang on it: a later attempt elsewhere begins behind the last block that was sent.
            self._log.warning("checkpoints_ended", reason=str(error))
            self._lease.journal.log.add("worker", "checkpoints_ended", "warning", reason=str(error))
        finally:
            with self._changed:
                self._waiting.clear()
                self._changed.notify_all()

    def _next(self) -> int | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopped)
            return None if self._stopped else self._waiting[0]

    def _send_until_done(self, block: int) -> None:
        while True:
            try:
                self._send(block)
            except StorageUnavailableError as error:
                self._log.warning("checkpoint_delayed", block=block, reason=str(error))
                self._pause()
            else:
                with self._changed:
                    self._waiting.popleft()
                    self._changed.notify_all()
                return

    def _send(self, block: int) -> None:
        record = read_record(self._blocks)
        if record is None:
            raise FileNotFoundError("the work folder is packed already")
        recorded = record.blocks[block]
        sha256, size_bytes = self._services.artifacts.put_file(self._blocks / recorded.block.file, self._go_on)
        if sha256 != recorded.block.sha256:
            raise BlobCorruptError(recorded.block.sha256, sha256)
        self._services.faults.hit(FaultPoint.CHECKPOINT_UPLOADED)
        checkpoint = Checkpoint(
            block=block,
            fingerprint=record.fingerprint.sha256,
            sha256=sha256,
            size_bytes=size_bytes,
            record={"fingerprint": record.fingerprint.to_dict(), "block": recorded.to_dict()},
        )
        self._go_on()
        with self._services.database.transaction() as repository:
            repository.record_checkpoint(self._job.id, self._job.lease_token, checkpoint)
        self._services.faults.hit(FaultPoint.CHECKPOINT_RECORDED)

    def _go_on(self) -> None:
        """Raises where no more may be sent: another worker may own the job by now, or the attempt is over."""
        self._lease.require()
        if self._stopped:
            raise LeaseLostError(self._job.id, self._job.lease_token)

    def _pause(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped, RETRY_SECONDS)
        self._go_on()


def restore(services: Services, job: Job, folder: WorkFolder, before_each: Callable[[], None]) -> int:
    """Completes the work folder from the object store; returns how many blocks were fetched.

    What the folder has already stays, and where it is ahead nothing is fetched. before_each is called before every
    block and may raise. Raises StorageUnavailableError; a block that is gone or damaged ends what can be had.
    """
    with services.database.reading() as repository:
        stored = repository.list_checkpoints(job.id)
    if not stored or folder.artifact.exists():
        return 0
    fingerprint = Fingerprint(**stored[0].record["fingerprint"])
    local = _local_record(folder)
    if local is not None and (local.fingerprint != fingerprint or len(local.blocks) >= len(stored)):
        return 0
    folder.blocks.mkdir(parents=True, exist_ok=True)
    blocks: list[RecordedBlock] = []
    fetched = 0
    for checkpoint in stored:
        before_each()
        try:
            fetched += _fetch(services, checkpoint, folder.blocks / block_file_name(checkpoint.block))
        except (NotFoundError, BlobCorruptError) as error:
            structlog.get_logger().warning("checkpoint_lost", job_id=job.id, reason=str(error))
            break
        blocks.append(RecordedBlock.from_dict(checkpoint.record["block"]))
    activations = {} if local is None else local.activations
    write_record(folder.blocks, WorkRecord(fingerprint=fingerprint, blocks=tuple(blocks), activations=activations))
    return fetched


def _local_record(folder: WorkFolder) -> WorkRecord | None:
    try:
        return read_record(folder.blocks)
    except ResumeRefusedError:
        return None  # unreadable: as good as none, and better than starting anew


def _fetch(services: Services, checkpoint: Checkpoint, path: Path) -> bool:
    """Puts one block in its place; returns whether it was not there."""
    if path.is_file() and file_sha256(path) == checkpoint.sha256:
        return False
    services.artifacts.fetch_to(checkpoint.sha256, path)
    return True
