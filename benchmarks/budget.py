"""Does a budget beat one grid for all linears at the same size? Bits per weight and perplexity of both.

    python benchmarks/budget.py --text wiki.valid.txt [--budgets 4.0 3.5] [--grids 4:-1 3:32] [--preset fast]

Prints one line per artifact as it is done, by rising size in the table at the end. Without --text and
BITMILL_BENCH_TEXT the built-in text is used, and the table says so.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from bench_model import first_model, second_model
from bench_text import load_bench_text

from core.budget.planner import plan_budget
from core.budget.request import BudgetRequest
from core.calibration.windows import CalibrationWindows, consecutive_windows, draw_windows
from core.configs import BudgetConfig, CalibrationConfig, QuantizationConfig, config_from_dict
from core.evaluation.loading import load_model, load_tokenizer
from core.evaluation.perplexity import perplexity
from core.pipeline import quantize_checkpoint
from store.settings import settings_from_env

SEQ_LEN = 512
SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One artifact. predicted: divergence in nats per token, None without a plan."""

    name: str
    bits: float
    predicted: float | None
    perplexity: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One model with its windows."""

    model: Path
    calibration: CalibrationWindows
    judged_NT: torch.Tensor  # noqa: N815 - shapes live in names
    config: QuantizationConfig

    def rows(self, options: argparse.Namespace) -> Iterator[Row]:
        """Yields a row per budget and per grid."""
        for limit in options.budgets:
            started = time.perf_counter()
            budget = BudgetConfig(bits=limit, windows=options.plan_windows)
            plan = plan_budget(self.model, BudgetRequest(config=self.config, budget=budget), self.calibration)
            print(f"budget {limit}: planned in {plan.seconds:.0f} s", flush=True)
            yield self._row(f"budget {limit}", plan.config, plan.divergence, started)
        for spelled in options.grids:
            bits, group_size = map(int, spelled.split(":"))
            values = {**self.config.to_dict(), "bits": bits, "group_size": group_size}
            size = "whole rows" if group_size == -1 else f"groups of {group_size}"
            yield self._row(f"{bits} bits, {size}", config_from_dict(values), None, time.perf_counter())

    def _row(self, name: str, config: QuantizationConfig, predicted: float | None, started: float) -> Row:
        with tempfile.TemporaryDirectory(prefix="bitmill-budget-") as scratch:
            report = quantize_checkpoint(self.model, Path(scratch) / "out", config, self.calibration)
            seconds = time.perf_counter() - started
            value = perplexity(load_model(Path(scratch) / "out"), self.judged_NT)
        return Row(name=name, bits=report.bits_per_weight, predicted=predicted, perplexity=value, seconds=seconds)


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    options = _options()
    text = load_bench_text(options.text)
    cache_dir = settings_from_env().cache_dir
    model = second_model(cache_dir, text.calibration) if options.second_model else first_model(cache_dir)
    tokenizer = load_tokenizer(model)
    drawn = CalibrationConfig(samples=options.samples, seq_len=SEQ_LEN, seed=SEED)
    bench = Bench(
        model=model,
        calibration=draw_windows(text.calibration, tokenizer, drawn),
        judged_NT=consecutive_windows(text.evaluation, tokenizer, SEQ_LEN, options.eval_windows).tokens_NT,
        config=config_from_dict({"preset": options.preset, "group_size": 64}),
    )
    print(
        f"{model.name}; text: {text.name}; calibration {options.samples} x {SEQ_LEN}, seed {SEED}, the plan on "
        f"{options.plan_windows}; preset {options.preset}, sym; judged on {options.eval_windows} windows, float32"
    )
    before = perplexity(load_model(model), bench.judged_NT)
    print(f"float: perplexity {before:.3f}", flush=True)
    rows = []
    for row in bench.rows(options):
        rows.append(row)
        print(_line(row, before), flush=True)
    print("\n| artifact | bits per weight | perplexity | over float | predicted nats | seconds |")
    print("|---|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: row.bits):
        print(_line(row, before))
    return 0


def _line(row: Row, before: float) -> str:
    predicted = "" if row.predicted is None else f"{row.predicted:.4f}"
    return (
        f"| {row.name} | {row.bits:.3f} | {row.perplexity:.3f} | {row.perplexity / before:.4f} | {predicted} | "
        f"{row.seconds:.0f} |"
    )


def _options() -> argparse.Namespace:
    default_text = os.environ.get("BITMILL_BENCH_TEXT")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--text", type=Path, default=default_text and Path(default_text), help="the bench text")
    parser.add_argument("--second-model", action="store_true", help="the fine-tuned model (trained on first use)")
    parser.add_argument("--budgets", type=float, nargs="*", default=[4.0, 3.5], help="bits per weight")
    parser.add_argument("--grids", nargs="*", default=["4:-1", "3:32"], help="BITS:GROUP_SIZE of single grids")
    parser.add_argument("--preset", default="fast", help="of the options beside the grid")
    parser.add_argument("--samples", type=int, default=16, help="calibration windows")
    parser.add_argument("--plan-windows", type=int, default=4, help="windows that plans are measured on")
    parser.add_argument("--eval-windows", type=int, default=24, help="windows that are judged")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
