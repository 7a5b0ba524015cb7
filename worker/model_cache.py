"""Brings uploaded models from the object store into this machine's cache, file by file, and keeps the cache bounded.

All workers of a machine share the cache. A lock per model says who uses it: one fetches, any number may read, and only
what nobody uses is let go. A file is whole or not there, so an interrupted fetch goes on behind its last whole file.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from core.preflight.resources import check_disk
from worker.trash import empty_trash, set_aside

if TYPE_CHECKING:
    from store.artifacts import ArtifactStore
    from store.models import ModelFile

LOCK_PAUSE_SECONDS = 0.2
LOCK_SUFFIX = ".lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchWatch:
    """Who follows a fetch. go_on: is called before each piece of a file and may raise.

    on_file: is told of each file before it is fetched. on_bytes: how many bytes have come, and of how many.
    """

    go_on: Callable[[], None]
    on_file: Callable[[ModelFile], None]
    on_bytes: Callable[[int, int], None]


class ModelCache:
    """A folder of models by their hash."""

    def __init__(self, artifacts: ArtifactStore, folder: Path, max_bytes: int) -> None:
        """max_bytes: of all models; a larger one is taken, after all others that nobody uses have gone."""
        self._artifacts = artifacts
        self._folder = folder
        self._max_bytes = max_bytes

    @contextmanager
    def held(self, sha256: str, files: Sequence[ModelFile], watch: FetchWatch) -> Iterator[Path]:
        """Yields the folder of a whole model, which stays there as long as the context lasts.

        Raises InsufficientResourcesError before the first byte, BlobCorruptError, NotFoundError for a file that the
        store lacks, StorageUnavailableError.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        place = self._folder / sha256
        # The lock's file stays when its model goes: whoever waits for it must not hold another one of the same name.
        with (self._folder / f"{sha256}{LOCK_SUFFIX}").open("ab") as lock:
            _take(lock, fcntl.LOCK_SH, watch.go_on)
            while _missing(place, files):
                _take(lock, fcntl.LOCK_EX, watch.go_on)
                self._fetch(place, files, watch)
                _take(lock, fcntl.LOCK_SH, watch.go_on)
            os.utime(place)
            yield place

    def _fetch(self, place: Path, files: Sequence[ModelFile], watch: FetchWatch) -> None:
        """Completes a model whose lock is ours alone."""
        place.mkdir(exist_ok=True)
        for torn in place.glob("*.partial"):
            torn.unlink()
        missing = _missing(place, files)
        needed_bytes = sum(file.size_bytes for file in missing)
        self._make_room(place, needed_bytes)
        check_disk(place, needed_bytes)
        come = 0

        def count(piece_bytes: int) -> None:
            nonlocal come
            come += piece_bytes
            watch.on_bytes(come, needed_bytes)

        for file in missing:
            watch.on_file(file)
            self._artifacts.fetch_to(file.sha256, place / file.name, watch.go_on, count)

    def _make_room(self, keep: Path, needed_bytes: int) -> None:
        """Lets models go that nobody uses, those first that were used longest ago, while there is too little room."""
        empty_trash(self._folder)
        models = [path for path in self._folder.iterdir() if path.is_dir()]
        sizes = {path: _bytes_in(path) for path in models}
        for path in sorted(models, key=lambda path: path.stat().st_mtime):
            free = shutil.disk_usage(self._folder).free
            if sum(sizes.values()) + needed_bytes <= self._max_bytes and free >= needed_bytes:
                return
            if path != keep and self._remove(path):
                del sizes[path]

    def _remove(self, path: Path) -> bool:
        """Removes a model, unless somebody uses it. It is gone at once under its name."""
        with path.with_name(f"{path.name}{LOCK_SUFFIX}").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            trash = set_aside(path)
        shutil.rmtree(trash, ignore_errors=True)
        return True


def _take(lock: IO[bytes], kind: int, go_on: Callable[[], None]) -> None:
    while True:
        go_on()
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_PAUSE_SECONDS)
        else:
            return


def _missing(place: Path, files: Sequence[ModelFile]) -> list[ModelFile]:
    """Returns the files that are not there; one that is was verified before it got its name."""
    return [file for file in files if not (place / file.name).is_file()]


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
