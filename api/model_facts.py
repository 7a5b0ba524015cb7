"""What is known of local model folders: read once per state of their files, since a submit names the same few again."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from core.preflight.source import inspect_source

if TYPE_CHECKING:
    from core.preflight.source import ModelFacts

KEPT = 64
SETTLED_SECONDS = 2.0
"""A file that changed so recently may change again within one tick of the file system's clock, and look the same."""

FileState = tuple[str, int, int, int]


class ModelFactsCache:
    """Inspects a folder at the first question and when any file of it has changed since."""

    def __init__(self) -> None:
        self._known: OrderedDict[Path, tuple[tuple[FileState, ...], ModelFacts]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, folder: Path) -> ModelFacts:
        """Returns a folder's facts; raises ModelRefusedError, which is not remembered."""
        files = _files(folder)
        with self._lock:
            known = self._known.get(folder)
        if known is not None and known[0] == files:
            return known[1]
        facts = inspect_source(folder)
        if _settled(files):
            self._remember(folder, files, facts)
        return facts

    def _remember(self, folder: Path, files: tuple[FileState, ...], facts: ModelFacts) -> None:
        with self._lock:
            self._known[folder] = (files, facts)
            self._known.move_to_end(folder)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)


def _files(folder: Path) -> tuple[FileState, ...]:
    """Returns path, inode, size and change time (ns) of every file in a folder, links followed, at any depth."""
    found = []
    for path, _, names in os.walk(folder):
        for name in names:
            file = os.path.join(path, name)  # noqa: PTH118 - a Path for each would take most of the time
            try:
                state = os.stat(file)  # noqa: PTH116 - as above
            except OSError:
                found.append((file, 0, 0, 0))  # a link that leads nowhere, which the inspection judges
            else:
                found.append((file, state.st_ino, state.st_size, state.st_ctime_ns))
    return tuple(sorted(found))


def _settled(files: tuple[FileState, ...]) -> bool:
    newest = max((changed for *_, changed in files), default=0)
    return time.time_ns() - newest > SETTLED_SECONDS * 1e9
