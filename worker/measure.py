"""The child's two stages that need a tokenizer: drawing calibration windows, and measuring what quantization cost.

It brings core's parts together; every number comes from core.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.calibration.builtin import builtin_text
from core.calibration.texts import read_documents
from core.calibration.windows import CalibrationWindows, consecutive_windows, draw_windows
from core.configs import CalibrationConfig
from core.evaluation.loading import load_model, load_tokenizer
from core.evaluation.perplexity import perplexity
from core.events import Event, Stage, StageAdvanced

EVALUATION_SEQ_LEN = 512
EVALUATION_WINDOWS = 16


def draw(text: Path, model_dir: Path, config: CalibrationConfig) -> CalibrationWindows:
    """Returns the job's calibration windows; raises CalibrationRefusedError where the text has too few tokens."""
    return draw_windows(read_documents(text), load_tokenizer(model_dir), config)


def measure(
    model_dir: Path, artifact_dir: Path, max_positions: int | None, on_event: Callable[[Event], None]
) -> dict[str, Any]:
    """Returns the perplexity of the float and of the quantized model on held-out built-in text, and what it is of.

    on_event is told of every window of both and may raise to stop.
    """
    seq_len = min(EVALUATION_SEQ_LEN, max_positions or EVALUATION_SEQ_LEN)
    tokenizer = load_tokenizer(model_dir)
    windows = consecutive_windows(builtin_text("evaluation"), tokenizer, seq_len, EVALUATION_WINDOWS)
    done = 0

    def advance(_: Event) -> None:
        nonlocal done
        done += 1
        on_event(StageAdvanced(stage=Stage.EVALUATING, done=done, total=2 * windows.samples))

    before, after = (perplexity(load_model(folder), windows.tokens_NT, advance) for folder in (model_dir, artifact_dir))
    return {
        "text": "builtin:evaluation",
        "tokens": windows.samples * windows.seq_len,
        "seq_len": windows.seq_len,
        "windows_sha256": windows.sha256,
        "perplexity_float": before,
        "perplexity_quantized": after,
        "perplexity_ratio": after / before,
    }
