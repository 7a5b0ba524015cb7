"""What the comparing benchmarks share: one `bitmill run` on given options, and the folders and texts of the bench."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from bench_text import BenchText
from process_tree import Usage, measure

from core.calibration.windows import draw_windows
from core.configs import CalibrationConfig
from core.evaluation.loading import load_tokenizer

SAMPLES = 32
SEQ_LEN = 512
SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """The calibration windows of a comparison: `file` for `bitmill run`, `tokens_NT` the same windows as token ids."""

    file: Path
    tokens_NT: torch.Tensor  # noqa: N815 - shapes live in names
    samples: int
    seq_len: int

    @property
    def options(self) -> list[str]:
        """Returns the command line's options that draw just these windows."""
        draw = ["--samples", str(self.samples), "--seq-len", str(self.seq_len), "--seed", str(SEED)]
        return ["--calib", str(self.file), *draw]


def draw_calibration(
    text: BenchText, model: Path, scratch: Path, samples: int = SAMPLES, seq_len: int = SEQ_LEN
) -> Draw:
    """Draws the windows once and writes the text for `bitmill run`."""
    file = scratch / "calibration.jsonl"
    file.write_text("".join(json.dumps({"text": part}) + "\n" for part in text.calibration), "utf-8")
    config = CalibrationConfig(samples=samples, seq_len=seq_len, seed=SEED)
    windows = draw_windows(text.calibration, load_tokenizer(model), config)
    return Draw(file=file, tokens_NT=windows.tokens_NT, samples=samples, seq_len=seq_len)


def run_bitmill(model: Path, dst: Path, draw: Draw, options: Sequence[str], threads: int) -> Usage:
    """Runs `bitmill run` as a process of its own; raises SystemExit where it fails."""
    command = [sys.executable, "-m", "cli", "run", "--src", str(model), "--dst", str(dst), *options, *draw.options]
    return measure([*command, "--json"], env={**os.environ, "OMP_NUM_THREADS": str(threads)})


def machine_line() -> str:
    """Returns what a reader must know of the machine, its load before the benchmark among it."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    capability = torch.backends.cpu.get_cpu_capability()
    return f"machine: {os.cpu_count()} cores, {capability}, torch {torch.__version__}; load before the run {load}"
