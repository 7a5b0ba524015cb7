"""How long and how much memory does `bitmill run` take beside other quantizers? Ratios, in one run on one machine.

    python benchmarks/peers.py --text wiki.valid.txt [--model DIR] [--runs 3] [--peers gptqmodel llmcompressor]
    python benchmarks/peers.py --text wiki.valid.txt --shape 1b --blocks 4 --samples 16 --group-size 128 --runs 1

Whole processes on all sides: the same model, calibration tokens, bits, group size and threads; kernel caches warm. The
runs of all sides take turns, so that a change in the machine's load meets each of them. Prints a table of medians and
their ratios to the fastest peer. `make peers` builds the peers' environments.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from bench_model import first_model
from bench_peers import PeerTask, known_peers, run_peer, write_tokens
from bench_runs import SAMPLES, SEQ_LEN, Draw, draw_calibration, machine_line, run_bitmill
from bench_text import load_bench_text
from process_tree import Usage
from random_llama import SHAPES, write_llama

from store.settings import settings_from_env

PRESETS = ("fast", "default")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One program of the comparison: `run` quantizes into a folder."""

    title: str
    is_peer: bool
    run: Callable[[Path], Usage]


def main() -> int:
    """Runs the comparison; returns the exit status."""
    options = _options()
    text = load_bench_text(options.text)
    with tempfile.TemporaryDirectory(prefix="bitmill-peers-", dir=options.scratch) as folder:
        scratch = Path(folder)
        model = _model(options, scratch)
        print(
            f"{model.name}: {options.samples} x {options.seq_len} tokens of {text.name}, {options.bits} bits, "
            f"group size {options.group_size}, sym, {options.threads} threads"
        )
        print(machine_line(), flush=True)
        draw = draw_calibration(text, model, scratch, options.samples, options.seq_len)
        _run_in_turns([*_ours(model, draw, options), *_theirs(model, draw, scratch, options)], scratch, options)
    return 0


def _model(options: argparse.Namespace, scratch: Path) -> Path:
    """Returns the model that all sides quantize; a shape's is written with random weights."""
    if options.shape is None:
        return options.model or first_model(settings_from_env().cache_dir)
    shape = SHAPES[options.shape].first(options.blocks)
    return write_llama(shape, scratch / f"llama-{shape.name}-{shape.layers}-blocks")


def _ours(model: Path, draw: Draw, options: argparse.Namespace) -> list[Side]:
    grid = ["--bits", str(options.bits), "--group-size", str(options.group_size)]
    return [
        Side(
            title=f"Bitmill --preset {preset}",
            is_peer=False,
            run=partial(run_bitmill, model, draw=draw, options=[*grid, "--preset", preset], threads=options.threads),
        )
        for preset in options.presets
    ]


def _theirs(model: Path, draw: Draw, scratch: Path, options: argparse.Namespace) -> list[Side]:
    peers = known_peers(options.threads)
    task = PeerTask(
        tokens=write_tokens(draw.tokens_NT, scratch / "tokens.json"),
        bits=options.bits,
        group_size=options.group_size,
        threads=options.threads,
    )
    return [
        Side(title=peers[name].title, is_peer=True, run=partial(run_peer, peers[name], task, model))
        for name in options.peers
    ]


def _options() -> argparse.Namespace:
    default_text = os.environ.get("BITMILL_BENCH_TEXT")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--text", type=Path, default=default_text and Path(default_text), help="the bench text")
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", type=Path, help="a model folder; default: SmolLM2-135M-Instruct, made on first use")
    model.add_argument("--shape", choices=sorted(SHAPES), help="a Llama of this shape with random weights instead")
    parser.add_argument("--blocks", type=int, help="of a shape: only the first so many; default: all")
    parser.add_argument("--peers", nargs="*", default=["gptqmodel", "llmcompressor"], choices=sorted(known_peers(1)))
    parser.add_argument("--presets", nargs="*", default=list(PRESETS))
    parser.add_argument("--runs", type=int, default=3, help="runs of each side, of which the medians are shown")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--seq-len", type=int, default=SEQ_LEN)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--scratch", type=Path, help="where artifacts are written; default: the system's own place")
    parser.add_argument("--json", action="store_true", help="also as JSON")
    return parser.parse_args()


def _run_in_turns(sides: list[Side], scratch: Path, options: argparse.Namespace) -> None:
    usages: dict[str, list[Usage]] = {side.title: [] for side in sides}
    artifact = scratch / "artifact"
    for turn in range(options.runs):
        for side in sides:
            usage = side.run(artifact)
            usages[side.title].append(usage)
            shutil.rmtree(artifact)
            print(
                f"turn {turn + 1}, {side.title}: {usage.seconds:.1f} s wall, {usage.cpu_seconds:.1f} s of processors, "
                f"{usage.peak_rss_bytes / 1e6:.0f} MB",
                flush=True,
            )
    medians = {title: _median(found) for title, found in usages.items()}
    fastest = min((medians[side.title].seconds for side in sides if side.is_peer), default=None)
    print(_table(medians, fastest))
    if options.json:
        print(json.dumps({title: [asdict(usage) for usage in found] for title, found in usages.items()}, indent=2))


def _median(usages: list[Usage]) -> Usage:
    return Usage(
        seconds=statistics.median(usage.seconds for usage in usages),
        cpu_seconds=statistics.median(usage.cpu_seconds for usage in usages),
        peak_rss_bytes=int(statistics.median(usage.peak_rss_bytes for usage in usages)),
    )


def _table(medians: Mapping[str, Usage], fastest: float | None) -> str:
    rows = [f"{'':32} {'seconds':>8} {'CPU s':>7} {'MB':>6} {'of the fastest peer':>20}"]
    for title, usage in medians.items():
        ratio = "" if fastest is None else f"{usage.seconds / fastest:.2f}"
        rows.append(
            f"{title:32} {usage.seconds:8.1f} {usage.cpu_seconds:7.1f} {usage.peak_rss_bytes / 1e6:6.0f} {ratio:>20}"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
