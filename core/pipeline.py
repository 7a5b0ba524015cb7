"""Quantizes a safetensors folder into a safetensors folder, one block in memory at a time, resumable at every block.

The order of the steps and nothing else: the steps are `steps`, what linears become is `quantizers`, the bytes on disk
are `checkpoint` and `formats`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from core.budget.plan import BudgetPlan
from core.calibration.windows import CalibrationWindows
from core.checkpoint.prefetch import ReadAhead
from core.checkpoint.reader import CheckpointReader
from core.configs import DEFAULT_FORMATS, Format, QuantizationConfig
from core.device import find_devices, free_memory
from core.environment import match_kernel_threads, return_freed_memory
from core.events import Event, RunStarted, Stage
from core.model.activations import Activations, HiddenStates
from core.model.capture import CapturedBatch
from core.preflight.resources import MAX_SHARD_BYTES, default_activation_memory
from core.profile import Profile
from core.quantizers.block import BlockWalk
from core.quantizers.dispatch import quantizer_for
from core.quantizers.team import Station, Team
from core.report import QuantizationReport
from core.steps.blocks import quantize_blocks
from core.steps.embedding import PackedEmbedding, record_embedding, solve_embedding
from core.steps.entering import capture_batches, entering_states
from core.steps.finishing import account_tensors, assembly_of, report_of
from core.steps.head import quantize_output_head
from core.steps.opening import open_run
from core.steps.recording import Recorder
from core.steps.run import OpenRun, RunRequest, Stages


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a run may use. threads: None leaves the process's setting. keep_work: leave the work folder on success.

    device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; where blocks run and are solved. Several, as in `cuda:0,cuda:1`,
    share the calibration batches; the first solves.
    activation_memory: bytes that batches may hold inside and between blocks on one device, see
    `core.model.activations`; None: half of what is free there when the run starts. No result depends on it.
    profile: measure the machine's products too and write `profile.json` into the artifact.
    """

    threads: int | None = None
    device: str = "cpu"
    max_shard_bytes: int = MAX_SHARD_BYTES
    keep_work: bool = False
    activation_memory: int | None = None
    profile: bool = False

    def team(self, devices: Sequence[torch.device], folder: Path) -> Team:
        """Returns the devices' threads and keepers of activations; what has no room lies in `folder`."""
        stations = [
            Station(device=device, further=number > 0, activations=Activations(self._room(device, devices), folder))
            for number, device in enumerate(devices)
        ]
        return Team(stations)

    def _room(self, device: torch.device, devices: Sequence[torch.device]) -> int:
        """Returns what activations may take on one device; what is one memory is shared."""
        sharing = len(devices) if device.type == "cpu" else 1
        if self.activation_memory is not None:
            return self.activation_memory // sharing
        return (free_memory(device) // 2 if device.type == "cuda" else default_activation_memory()) // sharing


def quantize_checkpoint(  # noqa: PLR0913 - the engine's front door; all but four have defaults
    source_dir: Path,
    out_dir: Path,
    config: QuantizationConfig,
    calibration: CalibrationWindows | None,
    *,
    work_dir: Path | None = None,
    formats: Sequence[Format] = DEFAULT_FORMATS,
    on_event: Callable[[Event], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    on_fault: Callable[[str], None] = lambda _: None,
    resources: Resources | None = None,
    provenance: Mapping[str, Any] | None = None,
    plan: BudgetPlan | None = None,
) -> QuantizationReport:
    """Quantizes every linear of every block and writes the artifact; returns the report that lies in it.

    work_dir keeps finished blocks until the artifact is complete and is removed then (default: out_dir + ".work").
    A run with the same source, config, calibration and numerics resumes from it, any other raises ResumeRefusedError.
    formats: the layouts that are written from the same solved blocks; they are no part of what a run resumes by.
    should_stop is asked between batches and linears, by the thread that called. on_fault is told each named point of
    `core.checkpoint.manifest`.
    provenance: JSON values about the source (`model`, `dataset`, no paths), kept in report, config and card.
    plan: where the config comes from a budget; kept in the report.
    Raises ModelRefusedError, InvalidConfigError, CalibrationRefusedError before any work; NumericalError,
    RunStoppedError (resumable), ArtifactInvalidError.
    """
    resources = resources or Resources()
    devices = find_devices(resources.device)
    if resources.threads is not None:
        torch.set_num_threads(resources.threads)
    match_kernel_threads()
    return_freed_memory()
    work_dir = work_dir or out_dir.with_name(f"{out_dir.name}.work")
    quantizer = quantizer_for(config)
    profile = Profile()
    with torch.no_grad(), CheckpointReader(source_dir) as reader, profile.recording():
        request = RunRequest(
            source_dir=source_dir,
            reader=reader,
            config=config,
            formats=formats,
            calibration=calibration if quantizer.needs_calibration else None,
            walk=BlockWalk(quantizer=quantizer, on_event=on_event, should_stop=should_stop),
            provenance=dict(provenance or {}),
            plan=plan,
            devices=devices,
        )
        stages = Stages(on_event=on_event)
        with stages.stage(Stage.PREFLIGHT):
            run = open_run(request, work_dir, on_fault)
        on_event(
            RunStarted(blocks_total=run.total, blocks_resumed=run.resumed, fingerprint=run.manifest.fingerprint.sha256)
        )
        with resources.team(devices, work_dir) as request.walk.team:
            _quantize(run, stages)
        report = _assemble(run, stages, out_dir, resources, profile)
    if not resources.keep_work:
        shutil.rmtree(work_dir)
    return report


def _quantize(run: OpenRun, stages: Stages) -> None:
    """Solves every block that the work folder does not hold yet, the head and the embedding."""
    if run.manifest.blocks_done == run.total:
        return
    packed = solve_embedding(run)
    if run.manifest.blocks_done < run.embedding_index:
        _quantize_behind(run, stages, packed)
    if packed is not None:
        with Recorder(run) as recorder:
            record_embedding(run, recorder, packed)


def _quantize_behind(run: OpenRun, stages: Stages, packed: PackedEmbedding | None) -> None:
    """Solves what comes behind the embedding: the blocks, and the head."""
    captured: list[CapturedBatch] = []
    hidden: list[HiddenStates] = []
    if run.request.calibration is not None:
        with stages.stage(Stage.CALIBRATING):
            captured, hidden = capture_batches(run, packed)
    with (
        stages.stage(Stage.QUANTIZING),
        ReadAhead(run.request.reader, run.skeleton.dtype, pinned=run.skeleton.device.type == "cuda") as weights,
        Recorder(run) as recorder,
    ):
        hidden = entering_states(run, weights, captured, hidden)
        hidden = quantize_blocks(run, weights, recorder, captured, hidden)
        if run.records.head is not None:
            quantize_output_head(run, recorder, run.records.head, captured, hidden)


def _assemble(
    run: OpenRun, stages: Stages, out_dir: Path, resources: Resources, profile: Profile
) -> QuantizationReport:
    """Writes the artifact from the finished blocks; returns the report in it."""
    tensors = account_tensors(run)
    report = report_of(run, tensors.dropped, stages.seconds, profile)
    with stages.stage(Stage.PACKING):
        assembly = assembly_of(run, tensors, report, profile if resources.profile else None)
        assembly.write(out_dir, resources.max_shard_bytes, run.request.formats)
    return report
