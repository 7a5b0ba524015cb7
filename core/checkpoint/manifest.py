"""A run's work folder: which blocks are solved, under which settings, so that a killed run goes on where it stood.

A block counts once its file and the manifest that records it are both on disk; anything later is dropped at the next
start. The manifest knows files and hashes; what the tensors mean is the pipeline's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, Self

import torch

from core.checkpoint.durable import TEMPORARY_MARK, file_sha256, replace_file
from core.checkpoint.layout import LayoutError, read_entries, read_tensor, tensors_stream
from core.checkpoint.record import (
    Fingerprint,
    RecordedBlock,
    RecordedFile,
    WorkRecord,
    block_file_name,
    read_record,
    write_record,
)
from core.errors import ResumeRefusedError
from core.profile import Work, count, span

ACTIVATIONS_KEPT: Final = 2
FAULT_POINTS: Final = ("block_written", "block_synced", "block_recorded")
"""Where `on_fault` is called: block bytes synced beside their place; block in place; manifest records the block."""


class Manifest:
    """The record of one work folder; made by `Manifest.open`. One process at a time may use a folder."""

    def __init__(self, work_dir: Path, fingerprint: Fingerprint, on_fault: Callable[[str], None]) -> None:
        self._work_dir = work_dir
        self._fingerprint = fingerprint
        self._on_fault = on_fault
        self._blocks: list[RecordedBlock] = []
        self._activations: dict[int, RecordedFile] = {}

    @classmethod
    def open(
        cls, work_dir: Path, fingerprint: Fingerprint, *, on_fault: Callable[[str], None] = lambda _: None
    ) -> Self:
        """Creates the folder's record, or resumes it: verifies every block's hash and keeps the unbroken prefix.

        on_fault is told each name of FAULT_POINTS when it is reached. Raises ResumeRefusedError, naming the field,
        where the folder was begun with another fingerprint or its record cannot be read.
        """
        manifest = cls(work_dir, fingerprint, on_fault)
        work_dir.mkdir(parents=True, exist_ok=True)
        for leftover in work_dir.glob(f"*{TEMPORARY_MARK}*"):
            leftover.unlink(missing_ok=True)
        record = read_record(work_dir)
        if record is not None:
            manifest._resume(record)
        manifest._save()
        return manifest

    @property
    def work_dir(self) -> Path:
        """Returns the work folder."""
        return self._work_dir

    @property
    def fingerprint(self) -> Fingerprint:
        """Returns what the folder's blocks depend on."""
        return self._fingerprint

    @property
    def blocks_done(self) -> int:
        """Returns how many blocks, counted from the first, are solved, synced and verified."""
        return len(self._blocks)

    @span(Work.WRITE)
    def record_block(
        self, index: int, tensors: Mapping[str, torch.Tensor], report_rows: Sequence[Mapping[str, Any]]
    ) -> str:
        """Stores the next block durably and returns its file's SHA-256.

        report_rows: the block's lines of the report, JSON values only. Raises ValueError where `index` is not the next.
        """
        if index != self.blocks_done:
            raise ValueError(f"block {index} recorded after {self.blocks_done} blocks; blocks are recorded in order")
        count(Work.WRITE, nbytes=_total_bytes(tensors))
        path = self.block_file(index)
        sha256 = replace_file(path, tensors_stream(tensors, {}), before_rename=lambda: self._on_fault("block_written"))
        self._on_fault("block_synced")
        rows = tuple(dict(row) for row in report_rows)
        self._blocks.append(RecordedBlock(block=RecordedFile(file=path.name, sha256=sha256), rows=rows))
        self._save()
        self._on_fault("block_recorded")
        return sha256

    def block_file(self, index: int) -> Path:
        """Returns where the block's tensors are, or will be."""
        return self._work_dir / block_file_name(index)

    def block_tensors(self, index: int) -> dict[str, torch.Tensor]:
        """Returns a recorded block's tensors. Raises IndexError on a block that is not recorded."""
        return _load(self._work_dir / self._blocks[index].block.file)

    def block_sha256(self, index: int) -> str:
        """Returns the SHA-256 of a recorded block's file."""
        return self._blocks[index].block.sha256

    def block_rows(self, index: int) -> list[dict[str, Any]]:
        """Returns a recorded block's lines of the report."""
        return [dict(row) for row in self._blocks[index].rows]

    @span(Work.WRITE)
    def save_activations(self, index: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keeps the activations that enter block `index`, and those that entered the one before; drops older ones.

        They only save work at a resume and their hash is checked, so no wait for the disk is spent on them.
        """
        count(Work.WRITE, nbytes=_total_bytes(tensors))
        path = self._work_dir / f"activations-{index:05d}.safetensors"
        sha256 = replace_file(path, tensors_stream(tensors, {}), sync=False)
        self._activations[index] = RecordedFile(file=path.name, sha256=sha256)
        dropped = [self._activations.pop(old) for old in sorted(self._activations)[:-ACTIVATIONS_KEPT]]
        self._save()
        for recorded in dropped:
            (self._work_dir / recorded.file).unlink(missing_ok=True)

    def load_activations(self, index: int) -> dict[str, torch.Tensor] | None:
        """Returns the activations that enter block `index`, or None where they are absent or not what was saved."""
        recorded = self._activations.get(index)
        if recorded is None or not self._verified(recorded):
            return None
        return _load(self._work_dir / recorded.file)

    def _resume(self, record: WorkRecord) -> None:
        for field in fields(Fingerprint):
            expected, found = getattr(record.fingerprint, field.name), getattr(self._fingerprint, field.name)
            if expected != found:
                raise ResumeRefusedError(field.name, expected, found)
        for block in record.blocks:
            if not self._verified(block.block):
                break
            self._blocks.append(block)
        self._activations = dict(record.activations)

    def _verified(self, recorded: RecordedFile) -> bool:
        path = self._work_dir / recorded.file
        return path.is_file() and file_sha256(path) == recorded.sha256

    def _save(self) -> None:
        record = WorkRecord(
            fingerprint=self._fingerprint, blocks=tuple(self._blocks), activations=dict(self._activations)
        )
        write_record(self._work_dir, record)


def _total_bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        return {name: read_tensor(entry) for name, entry in read_entries(path).items()}
    except (LayoutError, FileNotFoundError) as error:
        raise ResumeRefusedError(path.name, "the file that was recorded", str(error)) from error
