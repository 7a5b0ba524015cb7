"""Splits a benchmark's text into a calibration part and an evaluation part that share no article."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from core.calibration.builtin import builtin_text

CALIBRATION_SHARE = 0.7
# An article of the WikiText sets opens with " = Title = "; its sections open with two or more equals signs.
ARTICLE_HEADING = re.compile(r"^ = [^=\n].*? = $", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchText:
    """name: what the table calls it. The parts are lists of documents."""

    name: str
    calibration: list[str]
    evaluation: list[str]


def load_bench_text(file: Path | None) -> BenchText:
    """Returns the parts of a file, cut at the first article heading behind 70 %, or those of the built-in text."""
    if file is None:
        return BenchText(
            name="built-in text (pydoc topics)",
            calibration=builtin_text("calibration"),
            evaluation=builtin_text("evaluation"),
        )
    calibration, evaluation = split_at_heading(file.read_text(encoding="utf-8"))
    return BenchText(name=file.name, calibration=[calibration], evaluation=[evaluation])


def split_at_heading(text: str) -> tuple[str, str]:
    """Returns what stands before and from the first article heading behind 70 %; raises SystemExit without one."""
    heading = ARTICLE_HEADING.search(text, int(CALIBRATION_SHARE * len(text)))
    if heading is None:
        raise SystemExit("The text has no article heading (' = Title = ') in its last 30 %: it cannot be split.")
    return text[: heading.start()], text[heading.start() :]
