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
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from core.checkpoint.checksums import write_sha256sums
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


def quantize_checkpoint(
    source_dir: Path,
    out_dir: Path,
    config: object,
    calibration: object,
    *,
    work_dir: Path,
    on_event: Callable[[Event], None],
    should_stop: Callable[[], bool],
    provenance: dict[str, Any],
    resources: object = None,
    formats: object = None,
) -> None:
    """Writes one file per block, then puts them together."""
    print("a library prints this on standard output")  # noqa: T201 - it must not reach the protocol
    plan = _Plan(source_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    done = len(list(work_dir.glob("block-*.safetensors")))
    plan.misbehave("resume", done)
    on_event(RunStarted(blocks_total=BLOCKS, blocks_resumed=done, fingerprint="fake"))
    on_event(StageStarted(stage=Stage.QUANTIZING))
    for block in range(done, BLOCKS):
        _solve(block, plan, work_dir, on_event, should_stop)
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


def _solve(
    block: int,
    plan: _Plan,
    work_dir: Path,
    on_event: Callable[[Event], None],
    should_stop: Callable[[], bool],
) -> None:
    started = time.monotonic()
    while time.monotonic() - started < plan.block_seconds:
        time.sleep(min(0.01, plan.block_seconds))
        if should_stop():
            raise RunStoppedError(block)
    plan.misbehave("block", block)
    path = work_dir / f"block-{block:05d}.safetensors"
    partial = path.with_suffix(".tmp")
    save_file({"codes": np.full(16, block, np.int32)}, partial)
    partial.rename(path)
    if block == 0:
        on_event(WarningRaised(code="starved", message="few tokens", block=0, linear="q_proj"))
    on_event(
        LinearQuantized(
            block=block,
            linear=f"model.layers.{block}.self_attn.q_proj",
            bits=4,
            group_size=32,
            loss=0.5,
            relative_loss=0.01,
            tokens=64,
            damp_percent=0.05,
            seconds=0.05,
        )
    )
    on_event(StageAdvanced(stage=Stage.QUANTIZING, done=1, total=1))
    on_event(BlockQuantized(block=block, blocks_total=BLOCKS, seconds=0.05, rss_bytes=1, sha256="0" * 64))


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
