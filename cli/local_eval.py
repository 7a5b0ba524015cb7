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

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cli.progress_view import ProgressView
    from core.calibration.windows import CalibrationWindows
    from core.evaluation.fidelity import Fidelity


def run_eval(
    *, model: Path, artifacts: Sequence[Path], text: Path | None, seq_len: int, max_windows: int, as_json: bool
) -> None:
    """Measures and prints; raises CalibrationRefusedError where the text is too short for one window."""
    documents = builtin_text("evaluation") if text is None else read_documents(text)
    windows = consecutive_windows(documents, load_tokenizer(model), seq_len, max_windows)
    with progress_view(err()) as view:
        # Without an artifact the model is compared with itself: its perplexity is what was asked for.
        found = compare(model, artifacts or [model], windows, view)
    if as_json:
        print_json(_values(model, artifacts, windows, found))
        return
    _print_table(model, artifacts, found)
    out().print(f"on {windows.samples} windows of {seq_len} tokens, float32", style="dim")


def compare(model: Path, others: Sequence[Path], windows: CalibrationWindows, view: ProgressView) -> list[Fidelity]:
    """Compares folders with the float one and shows how far that is."""
    started_at = time.monotonic()

    def advance(done: int, total: int) -> None:
        left = (time.monotonic() - started_at) * (total / done - 1)
        view.show(
            ProgressState(label="evaluating", fraction=done / total, eta_at=time.time() + left, detail=str(model))
        )

    return compare_models(model, others, windows.tokens_NT, advance)


def _values(
    model: Path, artifacts: Sequence[Path], windows: CalibrationWindows, found: Sequence[Fidelity]
) -> dict[str, object]:
    return {
        "model": {"folder": str(model), "perplexity": found[0].perplexity_float, "bytes": _weight_bytes(model)},
        "windows": windows.samples,
        "tokens": found[0].tokens,
        "artifacts": [
            {
                "folder": str(folder),
                "bytes": _weight_bytes(folder),
                **asdict(fidelity),
                "perplexity_ratio": fidelity.perplexity_ratio,
            }
            for folder, fidelity in zip(artifacts, found, strict=False)
        ],
    }


def _print_table(model: Path, artifacts: Sequence[Path], found: Sequence[Fidelity]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("FOLDER")
    for column in ("PERPLEXITY", "x FLOAT", "KL, NATS", "SAME TOP 1", "WEIGHTS"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_row(model.name, f"{found[0].perplexity_float:.3f}", "", "", "", bytes_text(_weight_bytes(model)))
    for folder, fidelity in zip(artifacts, found, strict=False):
        table.add_row(
            folder.name,
            f"[bold]{fidelity.perplexity_quantized:.3f}[/]",
            f"{fidelity.perplexity_ratio:.4f}",
            f"{fidelity.kl_divergence:.5f}",
            f"{fidelity.top1_agreement:.2%}",
            bytes_text(_weight_bytes(folder)),
        )
    out().print(table)


def _weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
