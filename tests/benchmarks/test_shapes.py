"""The benchmark of shapes runs to its end on a tiny one and says what it measured."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_tiny_shape_is_run_and_judged(tmp_path: Path) -> None:
    """Two blocks of three, hidden states on disk and every batch replayed; figures beside what was estimated."""
    command = [sys.executable, "benchmarks/shapes.py", "--shape", "tiny", "--blocks", "2", "--group-size", "32"]
    limits = ["--samples", "40", "--seq-len", "64", "--activation-memory", "1kB", "--scratch", str(tmp_path)]
    done = subprocess.run([*command, *limits], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode in {0, 1}, done.stderr  # so small a shape is no measure of the estimate
    seconds = re.search(r"^seconds per block: (.+)$", done.stdout, re.MULTILINE)
    assert seconds is not None, done.stdout
    assert len(seconds[1].split()) == 2
    assert re.search(r"^memory, MB: \d{3}, estimated \d{3} \([+-]\d+%\)$", done.stdout, re.MULTILINE)
    assert re.search(r"^share of matrix products at the machine's rate: \d+%$", done.stdout, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []
