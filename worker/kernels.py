"""Where the children of a worker keep compiled kernels: a folder for each version of their sources and of Numba.

What was installed is taken over into an empty folder only (`core.kernels.installed`), so that a new version needs a new
one. A lock beside a folder says that a worker uses it; folders of versions that none uses are removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import time
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import IO

from worker.trash import discard, empty_trash

LOCK_SUFFIX = ".lock"
UNLOCKED_SECONDS = 30 * 86_400.0
"""How long a folder without a lock, as the first versions left theirs, must have stood unchanged."""
VERSION = re.compile(r"[0-9a-f]{12}")
SOURCES = Path(__file__).resolve().parent.parent / "core" / "kernels"


def kernel_folder(cache_dir: Path) -> Path:
    """Returns the folder that NUMBA_CACHE_DIR is to name."""
    return cache_dir / "numba" / _version()


def lock_of(folder: Path) -> Path:
    """Returns the file that is locked by who uses a folder."""
    return folder.with_name(f"{folder.name}{LOCK_SUFFIX}")


def hold_kernels(cache_dir: Path) -> IO[bytes]:
    """Uses this version's folder until what is returned is closed or the process ends, and removes what nobody uses.

    Raises OSError where the cache cannot be written.
    """
    own = kernel_folder(cache_dir)
    own.parent.mkdir(parents=True, exist_ok=True)
    lock = lock_of(own).open("ab")
    fcntl.flock(lock, fcntl.LOCK_SH)
    empty_trash(own.parent)
    for folder in own.parent.iterdir():
        if folder != own and VERSION.fullmatch(folder.name) and folder.is_dir():
            _remove_unused(folder)
    return lock


def _remove_unused(folder: Path) -> None:
    # The lock's file stays: whoever waits for it must not hold another one of the same name.
    if not lock_of(folder).exists():
        if time.time() - _changed_at(folder) > UNLOCKED_SECONDS:
            discard(folder)
        return
    with lock_of(folder).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        discard(folder)


def _changed_at(folder: Path) -> float:
    return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))


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
