"""What is done before torch is loaded and while it is: no compiler for a missing GPU, no search for garbage."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

from core.threads import loading_engine

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


def test_imports_are_not_searched_for_garbage() -> None:
    """The collector is still meanwhile, leaves what was made alone afterwards, and works again."""
    frozen = gc.get_freeze_count()
    try:
        with loading_engine():
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()


def test_a_collector_that_was_off_stays_off() -> None:
    """Whoever turned it off had a reason."""
    gc.disable()
    try:
        with loading_engine():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()
