"""How fast, how lean and how accurate is `bitmill run`? Wall time, peak memory and perplexity against the float model.

    python benchmarks/run.py --text wiki.valid.txt [--bits 4 3] [--second-model] [--model DIR]

Prints the command that it measures, one line per width, and the gates of 4 bits; exits with 1 where a gate is missed.
Without --text and BITMILL_BENCH_TEXT the built-in text is used, and the table says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from bench_model import first_model, second_model
from bench_text import BenchText, load_bench_text
from process_tree import measure

from core.calibration.windows import consecutive_windows
from core.evaluation.loading import load_model, load_tokenizer
from core.evaluation.perplexity import perplexity
from store.settings import settings_from_env

SAMPLES = 32
SEQ_LEN = 512
SEED = 0
GROUP_SIZE = 64

# The gates are set for 4 bits on 2 cores (x86-64, AVX-512).
GATE_BITS = 4
MAX_SECONDS = 90.0
MAX_RSS_BYTES = 10**9
MAX_RATIO = 1.23


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One timed `bitmill run` of one width on one model."""

    model: str
    bits: int
    command: str
    seconds: float
    cpu_seconds: float
    peak_rss_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result(Run):
    """A run and what its artifact is worth."""

    perplexity_float: float
    perplexity_quantized: float

    @property
    def ratio(self) -> float:
        """Returns quantized over float perplexity."""
        return self.perplexity_quantized / self.perplexity_float

    @property
    def missed(self) -> list[str]:
        """Returns the gates that are missed; none are set for other widths than 4 bits."""
        if self.bits != GATE_BITS:
            return []
        gates = {
            f"time {self.seconds:.1f} s, gate {MAX_SECONDS:.0f} s": self.seconds < MAX_SECONDS,
            f"memory {self.peak_rss_bytes / 1e6:.0f} MB, gate {MAX_RSS_BYTES / 1e6:.0f} MB": self.peak_rss_bytes
            < MAX_RSS_BYTES,
            f"perplexity ratio {self.ratio:.4f}, gate {MAX_RATIO}": self.ratio <= MAX_RATIO,
        }
        return [text for text, met in gates.items() if not met]


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    options = _options()
    text = load_bench_text(options.text)
    cache_dir = settings_from_env().cache_dir
    model = options.model or first_model(cache_dir)
    models = [model, second_model(cache_dir, text.calibration)] if options.second_model else [model]
    _print_head(text, options.eval_windows)
    results = [result for folder in models for result in _bench(folder, text, options)]
    if options.json:
        print(json.dumps([{**asdict(result), "ratio": result.ratio} for result in results], indent=2))
    missed = [f"{result.model}, {result.bits} bits: {gate}" for result in results for gate in result.missed]
    print("\n".join(f"MISSED  {gate}" for gate in missed) or "All gates met.")
    return 1 if missed else 0


def _options() -> argparse.Namespace:
    default_text = os.environ.get("BITMILL_BENCH_TEXT")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--text", type=Path, default=default_text and Path(default_text), help="the bench text")
    parser.add_argument("--model", type=Path, help="a model folder; default: SmolLM2-135M-Instruct, made on first use")
    parser.add_argument("--second-model", action="store_true", help="also the fine-tuned model (trained on first use)")
    parser.add_argument("--bits", type=int, nargs="+", default=[GATE_BITS], help="widths; gates are set for 4")
    parser.add_argument("--eval-windows", type=int, default=64, help="windows that are judged; 0 for all")
    parser.add_argument("--json", action="store_true", help="also as JSON")
    return parser.parse_args()


def _print_head(text: BenchText, eval_windows: int) -> None:
    print(
        f"text: {text.name}; calibration {SAMPLES} x {SEQ_LEN} tokens, seed {SEED}; group size {GROUP_SIZE}, sym; "
        f"judged on {eval_windows or 'all'} windows of {SEQ_LEN} tokens of the other part, float32"
    )
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(
        f"machine: {os.cpu_count()} cores, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, torch "
        f"{torch.__version__}, {torch.get_num_threads()} threads; load before the run {load}"
    )


def _bench(model: Path, text: BenchText, options: argparse.Namespace) -> list[Result]:
    windows = consecutive_windows(text.evaluation, load_tokenizer(model), SEQ_LEN, options.eval_windows or None)
    with tempfile.TemporaryDirectory(prefix="bitmill-bench-") as scratch:
        calibration = Path(scratch) / "calibration.jsonl"
        calibration.write_text("".join(json.dumps({"text": part}) + "\n" for part in text.calibration), "utf-8")
        # The float model is measured afterwards, when the timed processes are done.
        runs = [_run(model, Path(scratch) / f"w{bits}", bits, calibration) for bits in options.bits]
        perplexity_float = perplexity(load_model(model), windows.tokens_NT)
        return [_finish(run, Path(scratch) / f"w{run.bits}", windows.tokens_NT, perplexity_float) for run in runs]


def _run(model: Path, dst: Path, bits: int, calibration: Path) -> Run:
    program = [sys.executable, "-m", "cli", "run", "--src", str(model), "--dst", str(dst), "--method", "gptq"]
    grid = ["--bits", str(bits), "--group-size", str(GROUP_SIZE), "--calib", str(calibration)]
    draw = ["--samples", str(SAMPLES), "--seq-len", str(SEQ_LEN), "--seed", str(SEED), "--json"]
    command = [*program, *grid, *draw]
    print(f"$ {shlex.join(command)}", flush=True)
    usage = measure(command)
    # Processor time beside wall time shows whether the machine had other work to do.
    print(
        f"{model.name}, {bits} bits: {usage.seconds:.1f} s wall, {usage.cpu_seconds:.1f} s of processors, "
        f"{usage.peak_rss_bytes / 1e6:.0f} MB peak",
        flush=True,
    )
    return Run(
        model=model.name,
        bits=bits,
        command=shlex.join(command),
        seconds=usage.seconds,
        cpu_seconds=usage.cpu_seconds,
        peak_rss_bytes=usage.peak_rss_bytes,
    )


def _finish(run: Run, artifact: Path, tokens_NT: torch.Tensor, perplexity_float: float) -> Result:
    result = Result(
        **asdict(run),
        perplexity_float=perplexity_float,
        perplexity_quantized=perplexity(load_model(artifact), tokens_NT),
    )
    print(
        f"{result.model}, {result.bits} bits: perplexity {result.perplexity_quantized:.3f}, float "
        f"{result.perplexity_float:.3f}, ratio {result.ratio:.4f}",
        flush=True,
    )
    return result


if __name__ == "__main__":
    sys.exit(main())
