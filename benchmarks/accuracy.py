"""How much of the float model's quality is left, option by option and beside other quantizers? One table.

    python benchmarks/accuracy.py --text wiki.valid.txt [--second-model] [--bits 4 3] [--group-sizes 64]
        [--rows rtn plain default best] [--peers gptqmodel] [--results FILE]

Every row quantizes with the same calibration tokens and is judged by the same perplexity on text that was not used for
calibration. `share` is the part that is left of GPTQModel's perplexity gap to the float model in the same table.
With --results each finished row is kept in that file, so that a table can be broken off and continued.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from accuracy_rows import ROWS
from accuracy_table import FLOAT, Results, Scored, render
from bench_model import first_model, second_model
from bench_peers import PeerTask, known_peers, run_peer, write_tokens
from bench_runs import Draw, draw_calibration, machine_line, run_bitmill
from bench_text import BenchText, load_bench_text
from process_tree import Usage

from core.calibration.windows import CalibrationWindows, consecutive_windows
from core.evaluation.loading import load_model, load_tokenizer
from core.evaluation.perplexity import perplexity
from store.settings import settings_from_env

EVALUATION_SEQ_LEN = 512


def main() -> int:
    """Runs what is missing of the table and prints it; returns the exit status."""
    options = _options()
    text = load_bench_text(options.text)
    cache_dir = settings_from_env().cache_dir
    models = [options.model or first_model(cache_dir)]
    if options.second_model:
        models.append(second_model(cache_dir, text.calibration))
    results = Results(options.results)
    print(machine_line(), flush=True)
    for model in models:
        _fill(model, text, options, results)
        for bits in options.bits:
            for group_size in options.group_sizes:
                print(f"\n{model.name}, {bits} bits, group size {group_size}, sym, {text.name}")
                print(render(results.of(model.name, bits, group_size), results.float_perplexity(model.name)))
    return 0


def _options() -> argparse.Namespace:
    default_text = os.environ.get("BITMILL_BENCH_TEXT")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--text", type=Path, default=default_text and Path(default_text), help="the bench text")
    parser.add_argument("--model", type=Path, help="a model folder; default: SmolLM2-135M-Instruct, made on first use")
    parser.add_argument("--second-model", action="store_true", help="also the fine-tuned model (trained on first use)")
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 3, 2])
    parser.add_argument("--group-sizes", type=int, nargs="+", default=[64])
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--peers", nargs="*", default=["gptqmodel"], choices=sorted(known_peers(1)))
    parser.add_argument("--eval-windows", type=int, default=64, help="windows that are judged; 0 for all")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--results", type=Path, help="a file of finished rows (JSON lines), read and continued")
    return parser.parse_args()


def _fill(model: Path, text: BenchText, options: argparse.Namespace, results: Results) -> None:
    """Runs the rows of one model that `results` does not hold yet."""
    windows = consecutive_windows(
        text.evaluation, load_tokenizer(model), EVALUATION_SEQ_LEN, options.eval_windows or None
    )
    if results.float_perplexity(model.name) is None:
        results.add(Scored(model=model.name, title=FLOAT, perplexity=_judge(model, windows)))
    with tempfile.TemporaryDirectory(prefix="bitmill-accuracy-") as folder:
        draw = draw_calibration(text, model, Path(folder))
        tokens = write_tokens(draw.tokens_NT, Path(folder) / "tokens.json")
        for bits, group_size in itertools.product(options.bits, options.group_sizes):
            task = PeerTask(tokens=tokens, bits=bits, group_size=group_size, threads=options.threads)
            for title, run in _sides(model, draw, task, options):
                if not results.holds(model.name, bits, group_size, title):
                    usage = run(Path(folder) / "artifact")
                    scored = Scored(
                        model=model.name,
                        title=title,
                        bits=bits,
                        group_size=group_size,
                        perplexity=_judge(Path(folder) / "artifact", windows),
                        seconds=usage.seconds,
                        peak_rss_bytes=usage.peak_rss_bytes,
                    )
                    results.add(scored)
                    print(f"{model.name}, {bits} bits, {group_size}: {title} {scored.perplexity:.3f}", flush=True)
                    shutil.rmtree(Path(folder) / "artifact")


def _sides(
    model: Path, draw: Draw, task: PeerTask, options: argparse.Namespace
) -> Iterator[tuple[str, Callable[[Path], Usage]]]:
    """Yields every row's title and what writes its artifact."""
    peers = known_peers(options.threads)
    for name in options.peers:
        yield peers[name].title, partial(run_peer, peers[name], task, model)
    grid = ["--bits", str(task.bits), "--group-size", str(task.group_size)]
    for name in options.rows:
        row = ROWS[name]
        yield row.title, partial(run_bitmill, model, draw=draw, options=[*grid, *row.options], threads=task.threads)


def _judge(folder: Path, windows: CalibrationWindows) -> float:
    return perplexity(load_model(folder), windows.tokens_NT)


if __name__ == "__main__":
    sys.exit(main())
