"""Removes folders so that each is gone at once under its name: set aside first, and then emptied."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

TRASH_PREFIX = ".trash-"


def set_aside(folder: Path) -> Path:
    """Returns where the folder lies now, beside its old place, to be removed; FileNotFoundError where it is gone."""
    return folder.rename(folder.with_name(f"{TRASH_PREFIX}{uuid.uuid4().hex}"))


def discard(folder: Path) -> None:
    """Removes a folder, if it is there."""
    try:
        trash = set_aside(folder)
    except FileNotFoundError:
        return
    shutil.rmtree(trash, ignore_errors=True)


def empty_trash(root: Path) -> None:
    """Removes what an interrupted removal left; what cannot be removed now is left for the next time."""
    if root.is_dir():
        for entry in root.glob(f"{TRASH_PREFIX}*"):
            shutil.rmtree(entry, ignore_errors=True)
