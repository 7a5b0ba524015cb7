"""`bitmill eval`: perplexity of a float model and of an artifact made from it, on the same windows of the same text."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cli.output import duration_text, err, out, print_json
from cli.progress_view import ProgressState, progress_view
from core.calibration.builtin import builtin_text
from core.calibration.texts import read_documents
from core.calibration.windows import consecutive_windows
from core.evaluation.loading import load_model, load_tokenizer
from core.evaluation.perplexity import perplexity
from core.events import Event, StageAdvanced

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

    from cli.progress_view import ProgressView
    from core.calibration.windows import CalibrationWindows


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Perplexity of one folder and what it was measured on."""

    folder: str
    perplexity: float
    windows: int
    tokens: int
    seconds: float


def run_eval(
    *, model: Path, artifact: Path | None, text: Path | None, seq_len: int, max_windows: int, as_json: bool
) -> None:
    """Measures and prints; raises CalibrationRefusedError where the text is too short for one window."""
    documents = builtin_text("evaluation") if text is None else read_documents(text)
    windows = consecutive_windows(documents, load_tokenizer(model), seq_len, max_windows)
    with progress_view(err()) as view:
        results = [measure(folder, windows, view) for folder in (model, artifact) if folder is not None]
    if as_json:
        values = {name: _json(result) for name, result in zip(("model", "artifact"), results, strict=False)}
        print_json({**values, **({"ratio": results[1].perplexity / results[0].perplexity} if artifact else {})})
        return
    console = out()
    for name, result in zip(("model", "artifact"), results, strict=False):
        console.print(f"{name:<9} perplexity [bold]{result.perplexity:.3f}[/]  {duration_text(result.seconds)}")
    if artifact:
        console.print(f"ratio     [bold]{results[1].perplexity / results[0].perplexity:.4f}[/]")
    console.print(f"on {results[0].windows} windows of {seq_len} tokens, float32", style="dim")


def measure(folder: Path, windows: CalibrationWindows, view: ProgressView) -> Measured:
    """Loads one folder and measures its perplexity on the windows."""
    return measure_loaded(load(folder, view), folder, windows, view)


def load(folder: Path, view: ProgressView) -> PreTrainedModel:
    """Loads one folder, and says so."""
    view.show(ProgressState(label="loading", fraction=0.0, detail=str(folder)))
    return load_model(folder)


def measure_loaded(model: PreTrainedModel, folder: Path, windows: CalibrationWindows, view: ProgressView) -> Measured:
    """Measures the perplexity of a model that was loaded from the folder; seconds counts the measuring alone."""
    started_at = time.monotonic()

    def show(event: Event) -> None:
        if isinstance(event, StageAdvanced):
            fraction = event.done / max(event.total, 1)
            left = (time.monotonic() - started_at) * (1 / fraction - 1) if fraction else None
            eta_at = None if left is None else time.time() + left
            view.show(ProgressState(label="evaluating", fraction=fraction, eta_at=eta_at, detail=str(folder)))

    value = perplexity(model, windows.tokens_NT, on_event=show)
    return Measured(
        folder=str(folder),
        perplexity=value,
        windows=windows.samples,
        tokens=windows.samples * windows.seq_len,
        seconds=time.monotonic() - started_at,
    )


def _json(result: Measured) -> dict[str, object]:
    return {
        "folder": result.folder,
        "perplexity": result.perplexity,
        "windows": result.windows,
        "tokens": result.tokens,
        "seconds": round(result.seconds, 3),
    }
