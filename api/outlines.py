"""Folders that stand for uploaded models: what preflight reads of each, made from the store on demand.

Several API processes may share them: a folder appears whole under its model's hash, and stays while it is in use.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from core.preflight.outline import outline_bytes, write_outline

if TYPE_CHECKING:
    from store.artifacts import ArtifactStore
    from store.models import ModelFile

KEPT = 64
UNUSED_SECONDS = 3600.0
"""Whoever got a folder has read it long before; a draft that is older belongs to a process that died."""
DRAFT_PREFIX = "draft-"


class Outlines:
    """Makes them at the first question and lets the oldest go."""

    def __init__(self, artifacts: ArtifactStore, folder: Path) -> None:
        """folder: where they lie."""
        self._artifacts = artifacts
        self._folder = folder

    def of(self, sha256: str, files: Iterable[ModelFile]) -> Path:
        """Returns the folder of a model's outline; raises StorageUnavailableError."""
        place = self._folder / sha256
        with suppress(FileNotFoundError):
            os.utime(place)
            return place
        with self.draft() as draft:
            for file in files:
                self._fetch(draft, file)
            return self.adopt(draft, sha256)

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """Yields an empty folder, which is gone afterwards unless it was adopted."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._prune()
        draft = Path(tempfile.mkdtemp(prefix=DRAFT_PREFIX, dir=self._folder))
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def adopt(self, draft: Path, sha256: str) -> Path:
        """Keeps a draft as the outline of a model; returns its place."""
        place = self._folder / sha256
        # One that is there already is the same, and may be in use.
        with suppress(OSError):
            draft.rename(place)
        os.utime(place)
        return place

    def _fetch(self, draft: Path, file: ModelFile) -> None:
        start = b""
        while len(start) < (needed := outline_bytes(file.name, file.size_bytes, start)):
            start += b"".join(self._artifacts.open(file.sha256, len(start), needed))
        write_outline(draft / file.name, file.size_bytes, [start])

    def _prune(self) -> None:
        aged = sorted((entry.stat().st_mtime, entry) for entry in self._folder.iterdir())
        drafts = [(used_at, entry) for used_at, entry in aged if entry.name.startswith(DRAFT_PREFIX)]
        whole = [one for one in aged if one not in drafts]
        for used_at, entry in [*drafts, *whole[: max(len(whole) - KEPT, 0)]]:
            if time.time() - used_at > UNUSED_SECONDS:
                shutil.rmtree(entry, ignore_errors=True)
