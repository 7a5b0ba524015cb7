"""Files that are either whole or absent after a crash: written beside the target, synced, renamed, folder synced."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Final, TypeAlias

Bytes: TypeAlias = bytes | memoryview
CHUNK_BYTES: Final = 1 << 20
TEMPORARY_MARK: Final = ".tmp-"


def sync_folder(folder: Path) -> None:
    """Makes renames inside the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class HashedFile:
    """A new file that is written from its beginning, and the SHA-256 of what was written."""

    def __init__(self, path: Path) -> None:
        """Creates or empties the file."""
        self._file = path.open("wb")
        self._digest = hashlib.sha256()

    def write(self, chunk: Bytes) -> None:
        """Adds bytes."""
        self._file.write(chunk)
        self._digest.update(chunk)

    def finish(self, *, sync: bool = True) -> str:
        """Closes the file, by default once it is on the disk, and returns the SHA-256."""
        with self._file as file:
            file.flush()
            if sync:
                os.fsync(file.fileno())
        return self._digest.hexdigest()

    def close(self) -> None:
        """Closes what may be finished or torn."""
        self._file.close()


def write_stream(path: Path, chunks: Iterable[Bytes], *, sync: bool = True) -> str:
    """Writes the chunks to the path itself and returns the SHA-256 of what was written."""
    with closing(HashedFile(path)) as file:
        for chunk in chunks:
            file.write(chunk)
        return file.finish(sync=sync)


def replace_file(
    path: Path, chunks: Iterable[Bytes], *, sync: bool = True, before_rename: Callable[[], None] | None = None
) -> str:
    """Puts a whole new file in the path's place and returns its SHA-256; readers see the old or the new, never a part.

    sync=False leaves out the waits for the disk: still whole after a killed process, perhaps not after a power cut.
    before_rename is called when the bytes are written and synced but not yet visible.
    """
    temporary = path.with_name(f"{path.name}{TEMPORARY_MARK}{os.getpid()}-{secrets.token_hex(4)}")
    try:
        digest = write_stream(temporary, chunks, sync=sync)
        if before_rename is not None:
            before_rename()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if sync:
        sync_folder(path.parent)
    return digest


def file_chunks(path: Path, start: int = 0, length: int | None = None) -> Iterable[bytes]:
    """Yields the file's bytes, or `length` of them from `start`; raises EOFError where the file ends before."""
    with path.open("rb") as file:
        file.seek(start)
        left = length
        while left is None or left > 0:
            chunk = file.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left))
            if not chunk:
                if left:
                    raise EOFError(f"{path} ends {left} bytes early")
                return
            if left is not None:
                left -= len(chunk)
            yield chunk


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
