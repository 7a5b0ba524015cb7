"""Solved blocks are packed, written, synced and recorded by one thread while the next block is solved.

A block is announced once it is recorded, by the run's own thread, at its next stop in front of a batch or a linear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch

from core.block_records import Packing
from core.checkpoint.aside import Aside, Piece
from core.environment import rss_bytes
from core.errors import RunStoppedError
from core.events import BlockQuantized
from core.profile import Work, span
from core.steps.run import OpenRun


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedBlock:
    """A solved block on its way to the disk. rows: its lines of the report. seconds: what it took to solve it.

    leaving: what enters the next block, by name, empty where nothing is to be kept of it; it is read while that block
    runs, so that nothing may change or free it meanwhile.
    """

    index: int
    packing: Packing
    rows: Sequence[Mapping[str, Any]]
    seconds: float
    leaving: Mapping[str, torch.Tensor]


class Recorder:
    """Records a run's blocks in their order, at most one behind the run.

    While it is open the walk's question whether to stop also looks after the block under way: what went wrong with it
    is raised there. A run that is stopped ends with that block recorded and announced, or with what went wrong.
    """

    def __init__(self, run: OpenRun) -> None:
        self._run = run
        self._thread = Aside("recorder")
        self._under_way: tuple[FinishedBlock, Piece[str]] | None = None
        self._should_stop = run.request.walk.should_stop

    def record(self, block: FinishedBlock) -> None:
        """Hands a block over; waits for the one before and raises what that one raised."""
        self.settle()
        self._under_way = block, self._thread.begin(partial(self._write, block))

    def settle(self) -> None:
        """Waits for the block under way, if any, and announces it."""
        if self._under_way is None:
            return
        (block, piece), self._under_way = self._under_way, None
        with span(Work.WRITE):
            sha256 = piece.result()
        self._run.request.walk.on_event(
            BlockQuantized(
                block=block.index,
                blocks_total=self._run.total,
                seconds=block.seconds,
                rss_bytes=rss_bytes(),
                sha256=sha256,
            )
        )

    def __enter__(self) -> Self:
        """Begins to look after blocks between batches and linears."""
        self._run.request.walk.should_stop = self._look
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends with nothing under way."""
        self._run.request.walk.should_stop = self._should_stop
        try:
            if error is None or isinstance(error, RunStoppedError):
                self.settle()
        finally:
            self._thread.__exit__(kind, error, trace)

    def _look(self) -> bool:
        if self._under_way is not None and self._under_way[1].done:
            self.settle()
        return self._should_stop()

    def _write(self, block: FinishedBlock) -> str:
        manifest = self._run.manifest
        sha256 = manifest.record_block(block.index, block.packing.tensors(), block.rows)
        if block.leaving:
            manifest.save_activations(block.index + 1, block.leaving)
        return sha256
