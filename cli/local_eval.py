"""`bitmill eval`: how near artifacts are to the float model that they were made from, on the same windows of a text."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from cli.output import bytes_text, err, out, print_json
from cli.progress_view import ProgressState, progress_view
from core.calibration.builtin import builtin_text
from core.calibration.texts import read_documents
from core.calibration.windows import consecutive_windows
from core.evaluation.fidelity import compare_models
from core.evaluation.loading import load_tokenizer
from core.evaluation.nf4 import NF4

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cli.progress_view import ProgressView
    from core.calibration.windows import CalibrationWindows
    from core.evaluation.fidelity import Fidelity


def run_eval(
    *,
    model: Path,
    artifacts: Sequence[Path],
    nf4: bool,
    text: Path | None,
    seq_len: int,
    max_windows: int,
    as_json: bool,
) -> None:
    """Measures and prints.

    Raises CalibrationRefusedError where the text is too short for one window, and MissingPackageError where NF4 is
    asked for without bitsandbytes.
    """
    others: list[Path | NF4] = [*artifacts, *([NF4(model)] if nf4 else [])]
    documents = builtin_text("evaluation") if text is None else read_documents(text)
    windows = consecutive_windows(documents, load_tokenizer(model), seq_len, max_windows)
    with progress_view(err()) as view:
        # Without an artifact the model is compared with itself: its perplexity is what was asked for.
        found = compare(model, others or [model], windows, view)
    if as_json:
        print_json(_values(model, others, windows, found))
        return
    _print_table(model, others, found)
    out().print(f"on {windows.samples} windows of {seq_len} tokens, float32", style="dim")


def compare(
    model: Path, others: Sequence[Path | NF4], windows: CalibrationWindows, view: ProgressView
) -> list[Fidelity]:
    """Compares folders with the float one and shows how far that is."""
    started_at = time.monotonic()

    def advance(done: int, total: int) -> None:
        left = (time.monotonic() - started_at) * (total / done - 1)
        view.show(
            ProgressState(label="evaluating", fraction=done / total, eta_at=time.time() + left, detail=str(model))
        )

    return compare_models(model, others, windows.tokens_NT, advance)


def _values(
    model: Path, others: Sequence[Path | NF4], windows: CalibrationWindows, found: Sequence[Fidelity]
) -> dict[str, object]:
    measured = list(zip(others, found, strict=False))
    rounded = [_measures(other, fidelity) for other, fidelity in measured if isinstance(other, NF4)]
    return {
        "model": {"folder": str(model), "perplexity": found[0].perplexity_float, "bytes": _weight_bytes(model)},
        "windows": windows.samples,
        "tokens": found[0].tokens,
        "artifacts": [
            {"folder": str(other), **_measures(other, fidelity)}
            for other, fidelity in measured
            if not isinstance(other, NF4)
        ],
        "nf4": rounded[0] if rounded else None,
    }


def _measures(other: Path | NF4, fidelity: Fidelity) -> dict[str, object]:
    return {"bytes": _weight_bytes(other), **asdict(fidelity), "perplexity_ratio": fidelity.perplexity_ratio}


def _print_table(model: Path, others: Sequence[Path | NF4], found: Sequence[Fidelity]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("FOLDER")
    for column in ("PERPLEXITY", "x FLOAT", "KL, NATS", "SAME TOP 1", "WEIGHTS"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_row(model.name, f"{found[0].perplexity_float:.3f}", "", "", "", bytes_text(_weight_bytes(model)))
    for other, fidelity in zip(others, found, strict=False):
        table.add_row(
            other.name,
            f"[bold]{fidelity.perplexity_quantized:.3f}[/]",
            f"{fidelity.perplexity_ratio:.4f}",
            f"{fidelity.kl_divergence:.5f}",
            f"{fidelity.top1_agreement:.2%}",
            bytes_text(_weight_bytes(other)),
        )
    out().print(table)


def _weight_bytes(model: Path | NF4) -> int:
    if isinstance(model, NF4):
        return model.weight_bytes()
    return sum(file.stat().st_size for file in model.glob("*.safetensors"))
