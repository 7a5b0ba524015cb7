"""What is set before torch is loaded: threads that sleep, and no compiler for a GPU that is not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import importlib.util, pathlib, sys
from core.threads import leave_out_gpu_compiler
leave_out_gpu_compiler(pathlib.Path(sys.argv[1]))
import torch._dynamo
print(sys.modules.get("triton") is None)
"""


def _left_out(devices: Path) -> bool:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(devices)], capture_output=True, text=True, check=True, timeout=300
    )
    return done.stdout.split() == ["True"]


def test_triton_is_not_loaded_where_there_is_no_gpu(tmp_path: Path) -> None:
    """Torch can do without it, and loads it as soon as the machine has a device of a GPU."""
    assert _left_out(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert not _left_out(tmp_path)
