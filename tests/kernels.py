"""Compiled kernels for the processes that tests start: compiled once, and copied to where each looks for them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from worker.kernels import kernel_folder

ROOT = Path(__file__).parents[1]
COMPILED = ROOT / "var" / "test-kernels"


def with_kernels(cache_dir: Path) -> Path:
    """Fills the cache folder of a worker or a command with compiled kernels, and returns it.

    Compiling takes longer than the tests' jobs. What a run compiles beyond these stays in its own folder: Numba's
    cache is not made for processes that write to it at once.
    """
    shutil.copytree(_compiled(), kernel_folder(cache_dir))
    return cache_dir


def compiled_kernels() -> Path:
    """Returns the folder in which Numba's files lie."""
    return next(file.parent for file in _compiled().glob("*/*.nbi"))


@cache
def _compiled() -> Path:
    COMPILED.mkdir(parents=True, exist_ok=True)
    variables = {**os.environ, "NUMBA_CACHE_DIR": str(COMPILED)}
    with Path(__file__).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run([sys.executable, "-m", "core.warm_up"], cwd=ROOT, env=variables, check=True)
    return COMPILED
