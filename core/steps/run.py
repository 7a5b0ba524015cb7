"""What a run is asked for, and what it has in hand once it is open. Values: the steps are the modules beside this."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from core.block_records import BlockRecords
from core.budget.plan import BudgetPlan
from core.calibration.windows import CalibrationWindows
from core.checkpoint.manifest import Manifest
from core.checkpoint.reader import CheckpointReader
from core.configs import Format, QuantizationConfig
from core.events import Event, Stage, StageStarted
from core.model.skeleton import Skeleton
from core.preflight.memory import TOKENS_PER_BATCH
from core.preflight.rules import Shapes
from core.preflight.source import ModelFacts
from core.quantizers.block import BlockWalk


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What is to be quantized, and how. calibration: None for a method that needs none.

    devices: on which batches run; on the first, blocks lie and are solved.
    """

    source_dir: Path
    reader: CheckpointReader
    config: QuantizationConfig
    formats: Sequence[Format]
    calibration: CalibrationWindows | None
    walk: BlockWalk
    provenance: Mapping[str, Any]
    plan: BudgetPlan | None
    devices: tuple[torch.device, ...]

    @property
    def device(self) -> torch.device:
        """Returns the first device."""
        return self.devices[0]

    @property
    def token_batches(self) -> tuple[torch.Tensor, ...]:
        """Returns the calibration tokens [B, T] of each batch, on the run's device."""
        if self.calibration is None:
            return ()
        return torch.split(
            self.calibration.tokens_NT.to(self.device), max(1, TOKENS_PER_BATCH // self.calibration.seq_len)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRun:
    """A run that passed its checks. shapes: of the quantized linears. resumed: blocks that were finished before."""

    request: RunRequest
    facts: ModelFacts
    skeleton: Skeleton
    records: BlockRecords
    shapes: Shapes
    manifest: Manifest
    resumed: int

    @property
    def total(self) -> int:
        """Returns the number of blocks to record: the model's, then head and embedding where they are quantized."""
        return self.embedding_index + (self.records.embedding is not None)

    @property
    def embedding_index(self) -> int:
        """Returns the number under which the embedding is recorded, behind everything that needs calibration."""
        return len(self.skeleton.blocks.modules) + (self.records.head is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """Tells of each stage that begins, and keeps the seconds of those that ended."""

    on_event: Callable[[Event], None]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Opens a stage."""
        self.on_event(StageStarted(stage=stage))
        started = time.perf_counter()
        yield
        self.seconds[str(stage)] = time.perf_counter() - started
