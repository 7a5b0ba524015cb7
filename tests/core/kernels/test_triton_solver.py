from __future__ import annotations

import json
import os
import subprocess
import sys


def test_the_triton_kernel_equals_the_reference() -> None:
    """In Triton's interpreter, chosen before its import: the same codes but for ties, and the same residuals.

    Widths that are no power of two and rows that fill no whole tile are among them.
    """
    command = [sys.executable, "-m", "tests.core.kernels.triton_problems"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert len(found) == 9
    for problem, agreement in found.items():
        assert agreement["codes"] > 0.99, problem
        assert agreement["residuals"] < 1e-4, problem
