"""Puts a finished artifact's files into the object store, by content: doing it twice costs time and changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from store.artifacts import ArtifactStore
from store.errors import StorageUnavailableError
from store.jobs import NewArtifact

MEDIA_TYPES = {
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".jinja": "text/plain; charset=utf-8",
    ".safetensors": "application/vnd.safetensors",
}
TEXT_NAMES = frozenset({"SHA256SUMS", "LICENSE"})
PAUSE_SECONDS = 0.5


def artifact_files(folder: Path) -> Iterator[Path]:
    """Yields the artifact's files, sorted by relative path."""
    yield from sorted(path for path in folder.rglob("*") if path.is_file())


def upload(store: ArtifactStore, folder: Path, *, tries: int, go_on: Callable[[], None]) -> tuple[NewArtifact, ...]:
    """Uploads every file and returns what to publish.

    go_on is called before every file and every part of one and may raise, so that a cancel or a lost lease ends a long
    upload. Raises StorageUnavailableError once a file failed `tries` times.
    """
    return tuple(_put(store, folder, path, tries, go_on) for path in artifact_files(folder))


def _put(store: ArtifactStore, folder: Path, path: Path, tries: int, go_on: Callable[[], None]) -> NewArtifact:
    name = path.relative_to(folder).as_posix()
    for attempt in range(1, tries + 1):
        go_on()
        try:
            sha256, size = store.put_file(path, go_on)
        except StorageUnavailableError as error:
            if attempt == tries:
                raise
            structlog.get_logger().warning("upload_delayed", file=name, reason=str(error))
            time.sleep(PAUSE_SECONDS * 2**attempt)
        else:
            return NewArtifact(name=name, sha256=sha256, size_bytes=size, media_type=media_type(path))
    raise ValueError("tries must be at least 1")


def media_type(path: Path) -> str:
    """Returns the media type of an artifact's file by its name; bytes where none is known."""
    if path.name in TEXT_NAMES:
        return "text/plain; charset=utf-8"
    return MEDIA_TYPES.get(path.suffix, "application/octet-stream")
