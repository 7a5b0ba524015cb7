"""A stand-in for `core.pipeline.quantize_checkpoint`: 8 blocks of 50 ms, real safetensors, resumable, without torch.

It lies in a file that the child loads by path. `plan.json` in the model folder makes it misbehave: {"fault": name,
"block": n, "times": k}: at block n, the first k times that it gets there.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from core.checkpoint.checksums import write_sha256sums
from core.checkpoint.durable import TEMPORARY_MARK, file_sha256, replace_file
from core.checkpoint.record import (
    Fingerprint,
    RecordedBlock,
    RecordedFile,
    WorkRecord,
    block_file_name,
    read_record,
    write_record,
)
from core.errors import ModelProblem, ModelRefusedError, NumericalError, ResumeRefusedError, RunStoppedError
from core.events import (
    BlockQuantized,
    Event,
    LinearQuantized,
    RunStarted,
    Stage,
    StageAdvanced,
    StageStarted,
    WarningRaised,
)

BLOCKS = 8
BLOCK_SECONDS = 0.05
FINGERPRINT = {
    "model_sha256": "m" * 64,
    "calibration_sha256": "",
    "config": "{}",
    "engine_version": "fake",
    # An environment variable that children inherit, for a test that plays another machine.
    "numerics": os.environ.get("CUDA_VISIBLE_DEVICES", "this machine"),
}


def quantize_checkpoint(
    source_dir: Path,
    out_dir: Path,
    config: object,
    calibration: object,
    *,
    work_dir: Path,
    on_event: Callable[[Event], None],
    should_stop: Callable[[], bool],
    on_fault: Callable[[str], None],
    provenance: dict[str, Any],
    resources: object = None,
    formats: object = None,
) -> None:
    """Writes one file per block, then puts them together."""
    print("a library prints this on standard output")  # noqa: T201 - it must not reach the protocol
    plan = _Plan(source_dir)
    work = _Work(work_dir, Fingerprint(**FINGERPRINT), on_fault)
    plan.misbehave("resume", work.done)
    on_event(RunStarted(blocks_total=BLOCKS, blocks_resumed=work.done, fingerprint="fake"))
    on_event(StageStarted(stage=Stage.QUANTIZING))
    for block in range(work.done, BLOCKS):
        _wait(block, plan, should_stop)
        plan.misbehave("block", block)
        note_solved(source_dir, work_dir, block)
        sha256 = work.record(block)
        _report(block, sha256, on_event)
    on_event(StageStarted(stage=Stage.PACKING))
    partial = out_dir.with_name("partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for path in sorted(work_dir.glob("block-*.safetensors")):
        shutil.copy(path, partial)
    (partial / "config.json").write_text(json.dumps({"provenance": provenance}))
    write_sha256sums(partial)
    partial.rename(out_dir)
    shutil.rmtree(work_dir)


def note_solved(source_dir: Path, work_dir: Path, block: int) -> None:
    """Keeps account of what was solved for which job, beyond the life of any process."""
    with (source_dir / f"solved-{work_dir.parent.name}.txt").open("a") as account:
        account.write(f"{block}\n")


def row(block: int) -> dict[str, Any]:
    """Returns the block's one line of the report."""
    return {
        "block": block,
        "name": f"model.layers.{block}.self_attn.q_proj",
        "bits": 4,
        "group_size": 32,
        "loss": 0.5,
        "relative_loss": 0.01,
        "tokens": 64,
        "damp_percent": 0.05,
        "seconds": 0.05,
        "warnings": [],
    }


class _Work:
    """The work folder, recorded as the engine does, and as strict about whose blocks it takes over."""

    def __init__(self, folder: Path, fingerprint: Fingerprint, on_fault: Callable[[str], None]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f"*{TEMPORARY_MARK}*"):
            leftover.unlink()
        found = read_record(folder)
        if found is not None and found.fingerprint != fingerprint:
            raise ResumeRefusedError("numerics", fingerprint.numerics, found.fingerprint.numerics)
        self._folder = folder
        self._on_fault = on_fault
        blocks = [] if found is None else [block for block in found.blocks if self._whole(block)]
        self._record = WorkRecord(fingerprint=fingerprint, blocks=tuple(blocks))

    @property
    def done(self) -> int:
        return len(self._record.blocks)

    def record(self, block: int) -> str:
        path = self._folder / block_file_name(block)
        content = save({"codes": np.full(16, block, np.int32)})
        sha256 = replace_file(path, [content], before_rename=lambda: self._on_fault("block_written"))
        self._on_fault("block_synced")
        recorded = RecordedBlock(block=RecordedFile(file=path.name, sha256=sha256), rows=(row(block),))
        self._record = replace(self._record, blocks=(*self._record.blocks, recorded))
        write_record(self._folder, self._record)
        self._on_fault("block_recorded")
        return sha256

    def _whole(self, recorded: RecordedBlock) -> bool:
        path = self._folder / recorded.block.file
        return path.is_file() and file_sha256(path) == recorded.block.sha256


def _wait(block: int, plan: _Plan, should_stop: Callable[[], bool]) -> None:
    started = time.monotonic()
    while time.monotonic() - started < plan.block_seconds:
        time.sleep(min(0.01, plan.block_seconds))
        if should_stop():
            raise RunStoppedError(block)


def _report(block: int, sha256: str, on_event: Callable[[Event], None]) -> None:
    if block == 0:
        on_event(WarningRaised(code="starved", message="few tokens", block=0, linear="q_proj"))
    values = row(block)
    name = values.pop("name")
    on_event(LinearQuantized(**{**values, "linear": name, "warnings": ()}))
    on_event(StageAdvanced(stage=Stage.QUANTIZING, done=1, total=1))
    on_event(BlockQuantized(block=block, blocks_total=BLOCKS, seconds=0.05, rss_bytes=1, sha256=sha256))


class _Plan:
    """What goes wrong, where, and how often."""

    def __init__(self, source_dir: Path) -> None:
        path = source_dir / "plan.json"
        self._plan: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        self._count = source_dir / "misbehaved.txt"
        self.block_seconds = float(self._plan.get("block_seconds", BLOCK_SECONDS))

    def misbehave(self, place: str, block: int) -> None:
        """Does what the plan says, if this is the place and its times are not used up."""
        plan = self._plan
        times = len(self._count.read_text()) if self._count.exists() else 0
        if plan.get("fault") is None or (place, block) != (plan.get("place", "block"), plan["block"]):
            return
        if times >= plan.get("times", 1):
            return
        self._count.write_text("x" * (times + 1))
        FAULTS[plan["fault"]]()


def _signal(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def _raise(error: BaseException) -> Callable[[], None]:
    def fault() -> None:
        raise error

    return fault


def _allocate() -> None:
    bytearray(1 << 60)


def _print_on_the_pipe() -> None:
    for descriptor in range(3, 20):
        try:
            os.write(descriptor, b"not of the protocol\n")
        except OSError:
            continue
    time.sleep(600)


def _leave() -> None:
    print("something went wrong in a library", file=sys.stderr)  # noqa: T201 - the tail that users see
    sys.stderr.flush()
    os._exit(9)


def _ignore_stops() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)


FAULTS: dict[str, Callable[[], None]] = {
    "segv": _signal(signal.SIGSEGV),
    "kill": _signal(signal.SIGKILL),
    "freeze": _signal(signal.SIGSTOP),
    "exit": _leave,
    "stall": _ignore_stops,
    "memory": _allocate,
    "garble": _print_on_the_pipe,
    "bug": _raise(ZeroDivisionError("a bug of the engine")),
    "numerical": _raise(NumericalError("model.layers.3.mlp.down_proj", "not positive definite.")),
    "refused": _raise(ModelRefusedError(ModelProblem.NON_FINITE_WEIGHTS, "NaN in a weight.", "Use another model.")),
    "resume": _raise(ResumeRefusedError("numerics", "AVX2", "AVX512")),
}
