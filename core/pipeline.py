"""Quantizes a safetensors folder into a safetensors folder, one block in memory at a time, resumable at every block.

The loop and nothing else: what linears become is `quantizers`, the bytes on disk are `checkpoint` and `formats`.
"""

from __future__ import annotations

import json
import platform
import resource
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch

from core import assembly
from core.calibration.windows import CalibrationWindows
from core.checkpoint.identity import model_sha256
from core.checkpoint.manifest import Fingerprint, Manifest
from core.checkpoint.reader import CheckpointReader
from core.checkpoint.writer import ArtifactWriter
from core.configs import GPTQConfig, Order, QuantizationConfig
from core.errors import CalibrationProblem, CalibrationRefusedError, RunStoppedError
from core.events import BlockQuantized, Event, RunStarted, Stage, StageAdvanced, StageStarted
from core.formats.gptq import check_packable, checkpoint_format, from_gptq_tensors, to_gptq_tensors
from core.formats.quantize_config import provenance_meta, quantization_config_dict
from core.model.capture import CapturedBatch, capture
from core.model.skeleton import COMPUTE_DTYPE, Skeleton
from core.model.structure import find_linears, linear_weight, set_linear_weight
from core.preflight.checks import check_config
from core.preflight.source import inspect_source
from core.quantizers.block import BlockWalk, SolvedBlock, block_batches
from core.quantizers.dispatch import quantizer_for
from core.report import REPORT_FILE, LinearReport, QuantizationReport

if TYPE_CHECKING:
    from collections.abc import Iterator

# A constant, not an option: the bytes of an artifact must not hang on how much memory a machine has.
TOKENS_PER_BATCH = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a run may use. threads: None leaves the process's setting; results do not depend on it."""

    threads: int | None = None
    max_shard_bytes: int = 4 << 30


def quantize_checkpoint(  # noqa: PLR0913 - the engine's front door; all but four have defaults
    source_dir: Path,
    out_dir: Path,
    config: QuantizationConfig,
    calibration: CalibrationWindows | None,
    *,
    work_dir: Path | None = None,
    on_event: Callable[[Event], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    on_fault: Callable[[str], None] = lambda _: None,
    resources: Resources | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> QuantizationReport:
    """Quantizes every linear of every block and writes the artifact; returns the report that lies in it.

    work_dir keeps finished blocks until the artifact is complete and is removed then (default: out_dir + ".work").
    A run with the same source, config, calibration and numerics resumes from it, any other raises ResumeRefusedError.
    should_stop is asked between batches and linears. on_fault is told each named point of `core.checkpoint.manifest`.
    provenance: JSON values about the source (no paths), kept in report and config. out_dir appears only when complete.
    Raises ModelRefusedError, InvalidConfigError, CalibrationRefusedError before any work; NumericalError,
    RunStoppedError (resumable), ArtifactInvalidError.
    """
    resources = resources or Resources()
    if resources.threads is not None:
        torch.set_num_threads(resources.threads)
    work_dir = work_dir or out_dir.with_name(f"{out_dir.name}.work")
    with torch.no_grad(), CheckpointReader(source_dir) as reader:
        run = _Run(
            source_dir=source_dir,
            reader=reader,
            config=config,
            calibration=calibration,
            provenance=dict(provenance or {}),
            on_event=on_event,
            should_stop=should_stop,
        )
        manifest = run.open(work_dir, on_fault)
        run.quantize_blocks(manifest)
        report = run.assemble(manifest, out_dir, resources.max_shard_bytes)
    shutil.rmtree(work_dir)
    return report


@dataclass(slots=True, kw_only=True)
class _Run:
    """One run's facts; the methods are its steps, in order."""

    source_dir: Path
    reader: CheckpointReader
    config: QuantizationConfig
    calibration: CalibrationWindows | None
    provenance: dict[str, Any]
    on_event: Callable[[Event], None]
    should_stop: Callable[[], bool]
    skeleton: Skeleton = field(init=False)
    walk: BlockWalk = field(init=False)
    resumed: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def open(self, work_dir: Path, on_fault: Callable[[str], None]) -> Manifest:
        """Refuses what cannot work, then creates or resumes the work folder."""
        with self._stage(Stage.PREFLIGHT):
            check_config(self.config, inspect_source(self.source_dir), ())
            self.walk = BlockWalk(
                quantizer=quantizer_for(self.config), on_event=self.on_event, should_stop=self.should_stop
            )
            if self.walk.quantizer.needs_calibration and self.calibration is None:
                raise CalibrationRefusedError(
                    CalibrationProblem.EMPTY,
                    f"{self.config.method} needs calibration text.",
                    "Give a calibration text.",
                )
            self.skeleton = Skeleton.open(self.source_dir, self.reader)
            self._check_shapes()
            fingerprint = self._fingerprint()
            manifest = Manifest.open(work_dir, fingerprint, on_fault=on_fault)
            self.resumed = manifest.blocks_done
        self.on_event(
            RunStarted(
                blocks_total=len(self.skeleton.blocks.modules),
                blocks_resumed=self.resumed,
                fingerprint=fingerprint.model_sha256,
            )
        )
        return manifest

    def quantize_blocks(self, manifest: Manifest) -> None:
        """Solves every block that the manifest does not hold yet."""
        total = len(self.skeleton.blocks.modules)
        if manifest.blocks_done == total:
            return
        captured, hidden = self._capture() if self.walk.quantizer.needs_calibration else ([], [])
        with self._stage(Stage.QUANTIZING):
            hidden = self._entering(manifest, captured, hidden)
            for index in range(manifest.blocks_done, total):
                started = time.perf_counter()
                solved = self._solve_block(index, captured, hidden)
                hidden = solved.outputs
                sha256 = manifest.record_block(index, self._block_tensors(index, solved), self._rows(index, solved))
                if captured and index + 1 < total:
                    manifest.save_activations(index + 1, {str(n): states for n, states in enumerate(hidden)})
                self.skeleton.drop(self.skeleton.block_targets(index))
                self.on_event(
                    BlockQuantized(
                        block=index,
                        blocks_total=total,
                        seconds=time.perf_counter() - started,
                        rss_bytes=psutil.Process().memory_info().rss,
                        sha256=sha256,
                    )
                )

    def assemble(self, manifest: Manifest, out_dir: Path, max_shard_bytes: int) -> QuantizationReport:
        """Writes the artifact from the finished blocks."""
        with self._stage(Stage.PACKING), ArtifactWriter(out_dir, max_shard_bytes=max_shard_bytes) as writer:
            tensors = assembly.account(
                self.reader, self._consumed_names(), self.skeleton.names.unused, self._stored_ties()
            )
            assembly.write_weights(writer, self.reader, manifest, tensors)
            assembly.write_texts(writer, self.source_dir, self._quantization_dict())
            report = self._report(manifest, tensors)
            writer.add_text(REPORT_FILE, json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n")
            writer.commit()
        return report

    # What the steps above are made of, in the order of use.

    def _check_shapes(self) -> None:
        for block in self.skeleton.blocks.modules:
            for module in find_linears(block).values():
                out_features, in_features = linear_weight(module).shape
                check_packable(out_features, in_features, self.config.bits)

    def _fingerprint(self) -> Fingerprint:
        return Fingerprint(
            model_sha256=model_sha256(self.source_dir),
            calibration_sha256=self.calibration.sha256 if self.calibration else "",
            config=json.dumps(self.config.to_dict(), sort_keys=True),
            engine_version=metadata.version("bitmill"),
            numerics=numerics_profile(),
        )

    def _capture(self) -> tuple[list[CapturedBatch], list[torch.Tensor]]:
        """Runs the embedding on every batch and learns what the model hands to each block."""
        assert self.calibration is not None  # noqa: S101 - refused in `open`
        batches = torch.split(self.calibration.tokens_NT, max(1, TOKENS_PER_BATCH // self.calibration.seq_len))

        def advance(done: int) -> None:
            if self.should_stop():
                raise RunStoppedError(self.resumed)
            self.on_event(StageAdvanced(stage=Stage.CALIBRATING, done=done, total=len(batches)))

        with self._stage(Stage.CALIBRATING):
            embedding = self.skeleton.embedding_targets()
            self.skeleton.load(self.reader, embedding)
            calls = [((), {"input_ids": tokens}) for tokens in batches]
            captured, hidden = capture(self.skeleton.model, self.skeleton.blocks.modules, calls, advance)
            self.skeleton.drop(embedding)
        return captured, hidden

    def _entering(
        self, manifest: Manifest, captured: list[CapturedBatch], hidden: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Returns the hidden states that enter the first open block, saved ones or computed anew from the first's."""
        start = manifest.blocks_done
        if start == 0 or not captured:
            return hidden
        saved = manifest.load_activations(start)
        if saved is not None:
            return [saved[str(number)] for number in range(len(captured))]
        for index in range(start):
            self._load_finished(index, manifest)
            hidden = self.walk.forward(self.skeleton.blocks.modules[index], block_batches(captured, hidden, index))
            self.skeleton.drop(self.skeleton.block_targets(index))
        return hidden

    def _load_finished(self, index: int, manifest: Manifest) -> None:
        """Puts a finished block's quantized weights in place."""
        self.skeleton.load(self.reader, self.skeleton.block_targets(index))
        tensors = manifest.block_tensors(index)
        for name, module in find_linears(self.skeleton.blocks.modules[index]).items():
            weight = from_gptq_tensors(
                self._stored_prefix(index, name),
                tensors,
                bits=self.config.bits,
                group_size=self.config.group_size,
                sym=self.config.sym,
                version=checkpoint_format(sym=self.config.sym),
            )
            set_linear_weight(module, weight.dequantize(COMPUTE_DTYPE))

    def _solve_block(self, index: int, captured: list[CapturedBatch], hidden: list[torch.Tensor]) -> SolvedBlock:
        self.skeleton.load(self.reader, self.skeleton.block_targets(index))
        return self.walk.quantize(index, self.skeleton.blocks.modules[index], block_batches(captured, hidden, index))

    def _block_tensors(self, index: int, solved: SolvedBlock) -> dict[str, torch.Tensor]:
        tensors: dict[str, torch.Tensor] = {}
        linears = find_linears(self.skeleton.blocks.modules[index])
        for name, linear in solved.linears.items():
            bias = getattr(linears[name], "bias", None)
            tensors |= to_gptq_tensors(self._stored_prefix(index, name), linear.weight, bias)
        return tensors

    def _rows(self, index: int, solved: SolvedBlock) -> list[dict[str, Any]]:
        return [
            LinearReport(
                block=index,
                name=self._stored_prefix(index, name),
                bits=linear.weight.bits,
                group_size=linear.weight.group_size,
                loss=linear.loss,
                relative_loss=linear.relative_loss,
                tokens=linear.tokens,
                damp_percent=linear.damp_percent,
                order=linear.order,
                seconds=solved.seconds[name],
                warnings=linear.warnings,
            ).to_dict()
            for name, linear in solved.linears.items()
        ]

    def _stored_prefix(self, index: int, name: str) -> str:
        """Returns a linear's name in the checkpoint, without `.weight`."""
        target = f"{self.skeleton.blocks.path(index)}.{name}.weight"
        return self.skeleton.names.source_of[target].removesuffix(".weight")

    def _consumed_names(self) -> Iterator[str]:
        """Yields the source tensors that solved linears replace: weights, and biases where there are any."""
        for index, block in enumerate(self.skeleton.blocks.modules):
            for name in find_linears(block):
                prefix = f"{self.skeleton.blocks.path(index)}.{name}"
                for target in (f"{prefix}.weight", f"{prefix}.bias"):
                    if target in self.skeleton.names.source_of:
                        yield self.skeleton.names.source_of[target]

    def _stored_ties(self) -> dict[str, str]:
        """Returns stored tensors that the model ties to another stored one."""
        declared: Mapping[str, str] = self.skeleton.model.all_tied_weights_keys or {}
        source_of = self.skeleton.names.source_of
        return {
            source_of[target]: source_of[original]
            for target, original in declared.items()
            if target in source_of and original in source_of
        }

    def _quantization_dict(self) -> dict[str, Any]:
        facts: dict[str, Any] = dict(self.provenance)
        if self.calibration is not None and self.walk.quantizer.needs_calibration:
            facts["calibration"] = {
                "sha256": self.calibration.sha256,
                "samples": self.calibration.samples,
                "seq_len": self.calibration.seq_len,
            }
        gathers = isinstance(self.config, GPTQConfig) and self.config.order is Order.DESC_ACT
        meta = provenance_meta(self.config, metadata.version("bitmill"), facts)
        return quantization_config_dict(self.config, desc_act=gathers, meta=meta)

    def _report(self, manifest: Manifest, tensors: assembly.TensorAccount) -> QuantizationReport:
        rows = [row for index in range(manifest.blocks_done) for row in manifest.block_rows(index)]
        linears = tuple(LinearReport.from_dict(row) for row in rows)
        weights = sum(
            linear_weight(module).numel()
            for block in self.skeleton.blocks.modules
            for module in find_linears(block).values()
        )
        used = self.calibration if self.walk.quantizer.needs_calibration else None
        return QuantizationReport(
            config=self.config.to_dict(),
            linears=linears,
            blocks=manifest.blocks_done,
            blocks_resumed=self.resumed,
            bits_per_weight=assembly.bits_per_weight(manifest, weights),
            seconds_by_stage=dict(self.seconds),
            peak_rss_bytes=peak_rss_bytes(),
            versions=versions(),
            calibration_sha256=used.sha256 if used else None,
            calibration_samples=used.samples if used else 0,
            calibration_tokens=used.tokens_NT.numel() if used else 0,
            warnings=(
                *(used.warnings if used else ()),
                *(f"Tensor {name} was dropped: {reason}." for name, reason in tensors.dropped.items()),
            ),
            provenance=self.provenance,
        )

    @contextmanager
    def _stage(self, stage: Stage) -> Iterator[None]:
        self.on_event(StageStarted(stage=stage))
        started = time.perf_counter()
        yield
        self.seconds[str(stage)] = time.perf_counter() - started


def numerics_profile() -> str:
    """Returns what the bytes of a result depend on besides its inputs: a resume on another profile starts anew."""
    capability = torch.backends.cpu.get_cpu_capability()
    return (
        f"torch {torch.__version__} cpu {platform.machine()} {capability} {str(COMPUTE_DTYPE).removeprefix('torch.')}"
    )


def versions() -> dict[str, str]:
    """Returns the versions of the programs that decide a result."""
    names = ("bitmill", "torch", "transformers", "numba", "safetensors")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}


def peak_rss_bytes() -> int:
    """Returns the largest resident memory that this process had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
