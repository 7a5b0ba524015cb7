"""Where the children of a worker keep compiled kernels: a folder for each version of their sources and of Numba.

What was installed is taken over into an empty folder only (`core.kernels.installed`), so that a new version needs a new
one.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

SOURCES = Path(__file__).resolve().parent.parent / "core" / "kernels"


def kernel_folder(cache_dir: Path) -> Path:
    """Returns the folder that NUMBA_CACHE_DIR is to name."""
    return cache_dir / "numba" / _version()


@cache  # an installation does not change while a worker runs on it
def _version() -> str:
    digest = hashlib.sha256()
    for source in sorted(SOURCES.glob("*.py")):
        digest.update(source.read_bytes())
    try:
        digest.update(metadata.version("numba").encode())
    except metadata.PackageNotFoundError:
        digest.update(b"none")
    return digest.hexdigest()[:12]
