"""Quantizes a safetensors folder into a safetensors folder, one block in memory at a time, resumable at every block.

The loop and nothing else: what linears become is `quantizers`, the bytes on disk are `checkpoint` and `formats`.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from core.assembly import Assembly, account, bits_per_weight, rewritten
from core.block_records import BlockRecords, restored_states, starved_experts, stored_states
from core.budget.plan import BudgetPlan
from core.calibration.windows import CalibrationWindows
from core.checkpoint.identity import model_sha256
from core.checkpoint.manifest import Manifest
from core.checkpoint.reader import CheckpointReader
from core.checkpoint.record import Fingerprint
from core.configs import DEFAULT_FORMATS, Format, QuantizationConfig
from core.environment import (
    forward_dtype,
    match_kernel_threads,
    numerics_profile,
    peak_rss_bytes,
    product_rates,
    return_freed_memory,
    rss_bytes,
    versions,
)
from core.errors import CalibrationProblem, CalibrationRefusedError, RunStoppedError
from core.events import BlockQuantized, Event, RunStarted, Stage, StageAdvanced, StageStarted, WarningRaised
from core.model.capture import CapturedBatch, capture, head_inputs
from core.model.experts import Feed, set_feed
from core.model.skeleton import OutputHead, Skeleton
from core.model.suspend import HiddenStates
from core.preflight.checks import check_config
from core.preflight.resources import MAX_SHARD_BYTES
from core.preflight.rules import Shapes
from core.preflight.source import ModelFacts, inspect_source
from core.preflight.weights import refuse_non_finite
from core.profile import Profile, ProfileSummary, summarise
from core.quantizers.block import BlockBatch, BlockWalk, SolvedBlock, block_batches
from core.quantizers.dispatch import PerLinear, quantizer_for
from core.quantizers.head import HeadBatch, HeadTask, head_statistics, quantize_head
from core.report import LinearReport, QuantizationReport

# A constant, not an option: the bytes of an artifact must not hang on how much memory a machine has.
TOKENS_PER_BATCH = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a run may use. threads: None leaves the process's setting. keep_work: leave the work folder on success.

    profile: measure the machine's products too and write `profile.json` into the artifact.
    """

    threads: int | None = None
    max_shard_bytes: int = MAX_SHARD_BYTES
    keep_work: bool = False
    profile: bool = False


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
    should_stop is asked between batches and linears. on_fault is told each named point of `core.checkpoint.manifest`.
    provenance: JSON values about the source (`model`, `dataset`, no paths), kept in report, config and card.
    plan: where the config comes from a budget; kept in the report.
    Raises ModelRefusedError, InvalidConfigError, CalibrationRefusedError before any work; NumericalError,
    RunStoppedError (resumable), ArtifactInvalidError.
    """
    resources = resources or Resources()
    if resources.threads is not None:
        torch.set_num_threads(resources.threads)
    match_kernel_threads()
    return_freed_memory()
    work_dir = work_dir or out_dir.with_name(f"{out_dir.name}.work")
    quantizer = quantizer_for(config)
    profile = Profile()
    with torch.no_grad(), CheckpointReader(source_dir) as reader, profile.recording():
        run = _Run(
            source_dir=source_dir,
            reader=reader,
            config=config,
            formats=formats,
            calibration=calibration if quantizer.needs_calibration else None,
            walk=BlockWalk(quantizer=quantizer, on_event=on_event, should_stop=should_stop),
            provenance=dict(provenance or {}),
            plan=plan,
            profile=profile,
            resources=resources,
        )
        manifest = run.open(work_dir, on_fault)
        run.quantize_blocks(manifest)
        report = run.assemble(manifest, out_dir)
    if not resources.keep_work:
        shutil.rmtree(work_dir)
    return report


@dataclass(slots=True, kw_only=True)
class _Run:
    """One run's facts; the methods are its steps, in order."""

    source_dir: Path
    reader: CheckpointReader
    config: QuantizationConfig
    formats: Sequence[Format]
    calibration: CalibrationWindows | None
    walk: BlockWalk
    provenance: dict[str, Any]
    plan: BudgetPlan | None
    profile: Profile
    resources: Resources
    facts: ModelFacts = field(init=False)
    skeleton: Skeleton = field(init=False)
    records: BlockRecords = field(init=False)
    shapes: Shapes = field(init=False)
    resumed: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def open(self, work_dir: Path, on_fault: Callable[[str], None]) -> Manifest:
        """Refuses what cannot work, then creates or resumes the work folder."""
        with self._stage(Stage.PREFLIGHT):
            self.facts = inspect_source(self.source_dir)
            check_config(self.config, self.facts, formats=self.formats)
            self._require_calibration()
            refuse_non_finite(self.source_dir, self.facts)
            self.skeleton = Skeleton.open(self.source_dir, self.reader, forward_dtype(self.facts.dtype))
            if self.walk.quantizer.feeds_all_experts:
                set_feed(self.skeleton.model, Feed.ALL)
            self.records = BlockRecords(skeleton=self.skeleton, config=self.config, source=self.reader)
            self.shapes = self.records.shapes()
            per_linear = PerLinear()
            self.walk.choose = lambda index, name: per_linear.of(self.records.config_of(index, name))
            fingerprint = self._fingerprint()
            manifest = Manifest.open(work_dir, fingerprint, on_fault=on_fault)
            self.resumed = manifest.blocks_done
        self.walk.on_event(
            RunStarted(blocks_total=self._total, blocks_resumed=self.resumed, fingerprint=fingerprint.sha256)
        )
        return manifest

    def quantize_blocks(self, manifest: Manifest) -> None:
        """Solves every block that the manifest does not hold yet."""
        if manifest.blocks_done == self._total:
            return
        captured, hidden = self._capture()
        with self._stage(Stage.QUANTIZING):
            hidden = self._entering(manifest, captured, hidden)
            for index in range(manifest.blocks_done, len(self.skeleton.blocks.modules)):
                started = time.perf_counter()
                solved = self._solve_block(index, captured, hidden)
                hidden = solved.outputs
                rows = self.records.rows(index, solved)
                for block, message in starved_experts(rows, self.shapes).items():
                    self.walk.on_event(WarningRaised(code="starved_experts", message=message, block=block))
                sha256 = manifest.record_block(index, self.records.tensors(index, solved), rows)
                if captured and index + 1 < self._total:
                    manifest.save_activations(index + 1, stored_states(hidden))
                self.skeleton.drop(self.skeleton.block_targets(index))
                self.walk.on_event(
                    BlockQuantized(
                        block=index,
                        blocks_total=self._total,
                        seconds=time.perf_counter() - started,
                        rss_bytes=rss_bytes(),
                        sha256=sha256,
                    )
                )
            if self.records.head is not None:
                self._quantize_head(manifest, self.records.head, captured, hidden)

    def assemble(self, manifest: Manifest, out_dir: Path) -> QuantizationReport:
        """Writes the artifact from the finished blocks."""
        written = {*self.records.consumed(), *rewritten(self.reader, manifest)}
        tensors = account(self.reader, written, self.skeleton.names.unused, self.records.stored_ties())
        report = self._report(manifest, tensors.dropped)
        with self._stage(Stage.PACKING):
            Assembly(
                source_dir=self.source_dir,
                reader=self.reader,
                manifest=manifest,
                config=self.config,
                facts=self.facts,
                shapes=self.shapes,
                tensors=tensors,
                report=report,
                version=metadata.version("bitmill"),
                profile=self._profile_summary(),
            ).write(out_dir, self.resources.max_shard_bytes, self.formats)
        return report

    # What the steps above are made of, in the order of use.

    @property
    def _total(self) -> int:
        """Returns the number of steps: the blocks, and the head where it is quantized."""
        return len(self.skeleton.blocks.modules) + (self.records.head is not None)

    @property
    def _token_batches(self) -> tuple[torch.Tensor, ...]:
        if self.calibration is None:
            return ()
        return torch.split(self.calibration.tokens_NT, max(1, TOKENS_PER_BATCH // self.calibration.seq_len))

    def _require_calibration(self) -> None:
        if self.walk.quantizer.needs_calibration and self.calibration is None:
            raise CalibrationRefusedError(
                CalibrationProblem.EMPTY, f"{self.config.method} needs calibration text.", "Give a calibration text."
            )

    def _fingerprint(self) -> Fingerprint:
        return Fingerprint(
            model_sha256=model_sha256(self.source_dir),
            calibration_sha256=self.calibration.sha256 if self.calibration else "",
            config=json.dumps(self.config.to_dict(), sort_keys=True),
            engine_version=metadata.version("bitmill"),
            numerics=numerics_profile(self.skeleton.dtype),
        )

    def _capture(self) -> tuple[list[CapturedBatch], list[HiddenStates]]:
        """Runs the embedding on every batch and learns what the model hands to each block; nothing without text."""
        if self.calibration is None:
            return [], []
        batches = self._token_batches

        def advance(done: int) -> None:
            if self.walk.should_stop():
                raise RunStoppedError(self.resumed)
            self.walk.on_event(StageAdvanced(stage=Stage.CALIBRATING, done=done, total=len(batches)))

        with self._stage(Stage.CALIBRATING):
            embedding = self.skeleton.embedding_targets()
            self.skeleton.load(self.reader, embedding)
            calls = [((), {"input_ids": tokens}) for tokens in batches]
            captured, hidden = capture(self.skeleton.model, self.skeleton.blocks.modules, calls, advance)
            self.skeleton.drop(embedding)
        return captured, self.walk.entering(hidden)

    def _entering(
        self, manifest: Manifest, captured: list[CapturedBatch], hidden: list[HiddenStates]
    ) -> list[HiddenStates]:
        """Returns what enters the first open block: saved states, or those of block 0 run through the finished ones."""
        if manifest.blocks_done == 0 or not captured:
            return hidden
        saved = manifest.load_activations(manifest.blocks_done)
        if saved is not None:
            return restored_states(saved, len(captured))
        for index in range(manifest.blocks_done):
            hidden = self._pass_finished(index, manifest, block_batches(captured, hidden, index))
        return hidden

    def _pass_finished(self, index: int, manifest: Manifest, batches: list[BlockBatch]) -> list[HiddenStates]:
        """Runs a finished block, with its float weights where that path is carried, then with its quantized ones."""
        block = self.skeleton.blocks.modules[index]
        self.skeleton.load(self.reader, self.skeleton.block_targets(index))
        beside = self.walk.forward_float(block, batches)
        self.records.restore(index, manifest.block_tensors(index))
        states = self.walk.forward(block, batches)
        self.skeleton.drop(self.skeleton.block_targets(index))
        return [HiddenStates(quantized=q, float_path=f) for q, f in zip(states, beside, strict=True)]

    def _solve_block(self, index: int, captured: list[CapturedBatch], hidden: list[HiddenStates]) -> SolvedBlock:
        self.skeleton.load(self.reader, self.skeleton.block_targets(index))
        return self.walk.quantize(index, self.skeleton.blocks.modules[index], block_batches(captured, hidden, index))

    def _profile_summary(self) -> ProfileSummary | None:
        if not self.resources.profile:
            return None
        return summarise(self.profile, product_rates(self.profile.operations()))

    def _quantize_head(
        self, manifest: Manifest, head: OutputHead, captured: list[CapturedBatch], hidden: list[HiddenStates]
    ) -> None:
        started = time.perf_counter()
        index = len(self.skeleton.blocks.modules)
        part = self.config.for_linear(head.stored_name)
        assert part is not None  # noqa: S101 - a head that stays in float is none of the records'
        task = HeadTask(
            index=index,
            name=head.path,
            quantizer=quantizer_for(part),
            on_event=self.walk.on_event,
            beat=self._stop_before_head,
        )
        statistics = head_statistics(task.quantizer, self._head_batches(head, captured, hidden))
        solved = quantize_head(task, self.reader.tensor(head.weight).to(self.skeleton.dtype), statistics)
        bias = None if head.bias is None else self.reader.tensor(head.bias)
        sha256 = manifest.record_block(
            index, self.records.head_tensors(head, solved, bias), self.records.rows(index, solved)
        )
        self.walk.on_event(
            BlockQuantized(
                block=index,
                blocks_total=self._total,
                seconds=time.perf_counter() - started,
                rss_bytes=rss_bytes(),
                sha256=sha256,
            )
        )

    def _stop_before_head(self) -> None:
        if self.walk.should_stop():
            raise RunStoppedError(len(self.skeleton.blocks.modules))

    def _head_batches(
        self, head: OutputHead, captured: list[CapturedBatch], hidden: list[HiddenStates]
    ) -> Iterator[HeadBatch]:
        """Yields what the head is fed with, batch by batch; everything around the blocks but the head is loaded."""
        outer = self.skeleton.embedding_targets()
        if captured:
            self.skeleton.load(self.reader, outer)
        model, blocks = self.skeleton.model, self.skeleton.blocks.modules
        for tokens, batch, states in zip(self._token_batches, captured, hidden, strict=True):
            self._stop_before_head()
            run = partial(head_inputs, model, blocks, head.module, ((), {"input_ids": tokens}))
            beside = None if states.float_path is None else run(states.float_path)
            yield HeadBatch(inputs=run(states.quantized), token_mask=batch.token_mask, float_inputs=beside)
        self.skeleton.drop(outer)

    def _report(self, manifest: Manifest, dropped: Mapping[str, str]) -> QuantizationReport:
        rows = [row for index in range(manifest.blocks_done) for row in manifest.block_rows(index)]
        calibration = self.calibration
        warnings = [*(calibration.warnings if calibration else ())]
        warnings += starved_experts(rows, self.shapes).values()
        warnings += [f"Tensor {name} was dropped: {reason}." for name, reason in dropped.items()]
        return QuantizationReport(
            config=self.config.to_dict(),
            linears=tuple(LinearReport.from_dict(row) for row in rows),
            blocks=len(self.skeleton.blocks.modules),
            blocks_resumed=self.resumed,
            bits_per_weight=bits_per_weight(manifest, self.shapes),
            seconds_by_stage=dict(self.seconds),
            peak_rss_bytes=peak_rss_bytes(),
            versions=versions(),
            calibration_sha256=calibration.sha256 if calibration else None,
            calibration_samples=calibration.samples if calibration else 0,
            calibration_tokens=calibration.tokens_NT.numel() if calibration else 0,
            warnings=tuple(warnings),
            provenance=self.provenance,
            budget=None if self.plan is None else self.plan.to_dict(),
            seconds_by_work=self.profile.seconds(),
        )

    @contextmanager
    def _stage(self, stage: Stage) -> Iterator[None]:
        self.walk.on_event(StageStarted(stage=stage))
        started = time.perf_counter()
        yield
        self.seconds[str(stage)] = time.perf_counter() - started
