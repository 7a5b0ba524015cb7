"""Does memory stay that of one block, and is the estimate right? `bitmill run` on random weights of larger shapes.

    python benchmarks/shapes.py --shape 1b [--blocks 4] [--samples 16] [--preset fast] [--activation-memory 500MB]

Writes a Llama of the shape with random bfloat16 weights, tensor by tensor, runs it in a process of its own, and prints
the seconds of each block, the peak of memory and disk beside what was estimated before, and the share of time that the
matrix products need at the machine's rate. `--blocks` takes the first blocks alone. Exits with 1 where a target is
missed; those of time are judged only where `--judge-time` says that the machine has nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_runs import machine_line
from process_tree import Usage, measure
from random_llama import SHAPES, Shape, write_llama

LOOK_SECONDS = 0.5
SEQ_LEN = 512
ESTIMATE_WITHIN = 0.25
MOST_BYTES = {"8b": 6 * 10**9}
LEAST_PRODUCT_SHARE = {"1b": 0.6}
FLAT_WITHIN = 0.25
FEWEST_BLOCKS = 4
"""To judge whether time per block is flat; the first and the last have more and less to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run took. summary: of `bitmill run --json`. profile: its profile.json. disk_bytes: at the peak."""

    shape: Shape
    usage: Usage
    disk_bytes: int
    summary: Mapping[str, Any]
    profile: Mapping[str, Any]


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    options = _options()
    shape = SHAPES[options.shape].first(options.blocks)
    print(machine_line())
    with tempfile.TemporaryDirectory(prefix="bitmill-shapes-", dir=options.scratch) as scratch:
        model = write_llama(shape, Path(scratch) / "model")
        print(f"{shape.name}: {shape.layers} blocks, {shape.parameters / 1e9:.2f} billion weights", flush=True)
        outcome = _run(shape, model, Path(scratch) / "run", options)
    missed = _report(outcome, judge_time=options.judge_time)
    print("\n".join(f"MISSED  {target}" for target in missed) or "All targets met.")
    return 1 if missed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--blocks", type=int, help="only the first so many; default: all")
    parser.add_argument("--samples", type=int, default=16, help=f"calibration windows of {SEQ_LEN} tokens")
    parser.add_argument("--seq-len", type=int, default=SEQ_LEN)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--group-size", type=int, default=128)
    parser.add_argument("--activation-memory", help="as of `bitmill run`")
    parser.add_argument("--scratch", type=Path, help="where model and artifact lie; default: the system's folder")
    parser.add_argument("--judge-time", action="store_true", help="also the targets of time; on an idle machine")
    return parser.parse_args()


def _run(shape: Shape, model: Path, folder: Path, options: argparse.Namespace) -> Outcome:
    folder.mkdir()
    program = [sys.executable, "-m", "cli", "run", "--src", str(model), "--dst", str(folder / "out")]
    grid = ["--bits", "4", "--group-size", str(options.group_size), "--preset", options.preset]
    draw = ["--samples", str(options.samples), "--seq-len", str(options.seq_len), "--seed", "0"]
    limit = ["--activation-memory", options.activation_memory] if options.activation_memory else []
    command = [*program, *grid, *draw, *limit, "--profile", "--json"]
    print(f"$ {shlex.join(command)}", flush=True)
    with _largest_size(folder) as sizes, tempfile.NamedTemporaryFile("w+", suffix=".json") as answer:
        usage = measure(["sh", "-c", f"exec {shlex.join(command)} > {shlex.quote(answer.name)}"])
        summary = json.loads(Path(answer.name).read_text("utf-8"))
    profile = json.loads((folder / "out" / "profile.json").read_text("utf-8"))
    return Outcome(shape=shape, usage=usage, disk_bytes=max(sizes, default=0), summary=summary, profile=profile)


@contextmanager
def _largest_size(folder: Path) -> Iterator[list[int]]:
    """Yields a list of the folder's sizes over time; what has no name any more is not among them."""
    sizes: list[int] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(LOOK_SECONDS):
            sizes.append(_folder_bytes(folder))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield sizes
    finally:
        done.set()
        thread.join()
        sizes.append(_folder_bytes(folder))


def _folder_bytes(folder: Path) -> int:
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            with suppress(FileNotFoundError):  # it may be gone since it was listed
                total += (Path(root) / name).stat().st_size
    return total


def _report(outcome: Outcome, *, judge_time: bool) -> list[str]:
    """Prints what was measured; returns the targets that are missed."""
    blocks: Sequence[float] = outcome.summary["seconds_by_block"]
    estimate = outcome.summary["estimate"]
    print("seconds per block: " + " ".join(f"{seconds:.1f}" for seconds in blocks))
    print(f"{outcome.usage.seconds:.1f} s wall, {outcome.usage.cpu_seconds:.1f} s of processors")
    print(f"share of matrix products at the machine's rate: {outcome.profile['product_share']:.0%}")
    missed = []
    for name, found, expected, judged in (
        ("memory, MB", outcome.usage.peak_rss_bytes / 1e6, estimate["ram_bytes"] / 1e6, True),
        ("disk, MB", outcome.disk_bytes / 1e6, estimate["disk_bytes"] / 1e6, True),
        ("time, s", outcome.usage.seconds, estimate["seconds"], judge_time),
    ):
        if expected is None:
            continue
        off = expected / found - 1
        print(f"{name}: {found:,.0f}, estimated {expected:,.0f} ({off:+.0%})")
        if judged and abs(off) > ESTIMATE_WITHIN:
            missed.append(f"estimate of {name}: {off:+.0%}, target within {ESTIMATE_WITHIN:.0%}")
    return missed + _missed_targets(outcome, blocks, judge_time=judge_time)


def _missed_targets(outcome: Outcome, blocks: Sequence[float], *, judge_time: bool) -> list[str]:
    shape, found = outcome.shape.name, []
    most = MOST_BYTES.get(shape)
    if most is not None and outcome.usage.peak_rss_bytes > most:
        found.append(f"memory {outcome.usage.peak_rss_bytes / 1e9:.2f} GB, target {most / 1e9:.0f} GB")
    if judge_time and len(blocks) >= FEWEST_BLOCKS and blocks[-2] > (1 + FLAT_WITHIN) * blocks[1]:
        found.append(f"time per block: {blocks[-2]:.1f} s at the end, {blocks[1]:.1f} s at the start, target flat")
    share = LEAST_PRODUCT_SHARE.get(shape)
    if judge_time and share is not None and outcome.profile["product_share"] < share:
        found.append(f"share of products {outcome.profile['product_share']:.0%}, target {share:.0%}")
    return found


if __name__ == "__main__":
    sys.exit(main())
