"""Packs a model folder as a tar while it is sent: nothing is copied, and the length is known before the first byte."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cli.errors import CliError, ExitCode
from core.preflight.model_files import is_wanted

CHUNK_BYTES = 1 << 20


class PackedFolder:
    """The files of a model folder that a service takes, in the order in which they are sent."""

    def __init__(self, folder: Path) -> None:
        """Looks at names and sizes; raises OSError where the folder cannot be read."""
        paths = sorted(path for path in folder.iterdir() if path.is_file() and is_wanted(path.name))
        self._files = [(path, path.stat().st_size) for path in paths]

    @property
    def size_bytes(self) -> int:
        """Returns the length of the tar."""
        members = sum(len(_header(path, size)) + size + _padding(size) for path, size in self._files)
        return members + 2 * tarfile.BLOCKSIZE

    def pieces(self) -> Iterator[bytes]:
        """Yields the tar; raises CliError where a file is not what it was when its length was told."""
        for path, size in self._files:
            yield _header(path, size)
            with path.open("rb") as file:
                left = size
                while left and (piece := file.read(min(CHUNK_BYTES, left))):
                    left -= len(piece)
                    yield piece
                if left or file.read(1):
                    raise CliError(
                        ExitCode.FAILED,
                        f"{path} changed while it was sent.",
                        hint="Upload it when nothing writes to it any more.",
                        code="file_changed",
                    )
            yield bytes(_padding(size))
        yield bytes(2 * tarfile.BLOCKSIZE)


def file_pieces(path: Path) -> Iterator[bytes]:
    """Yields a file's bytes."""
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            yield piece


class SentStream(io.RawIOBase):
    """Pieces of a known length as a file that can be read once, from its beginning; it tells how far it is."""

    def __init__(self, pieces: Iterator[bytes], size_bytes: int, on_bytes: Callable[[int], None]) -> None:
        """on_bytes: is told how many bytes have been read so far."""
        super().__init__()
        self._pieces = pieces
        self._size_bytes = size_bytes
        self._on_bytes = on_bytes
        self._waiting = b""
        self._read_bytes = 0

    def read(self, size: int = -1, /) -> bytes:
        """Returns at most so many bytes, none at the end."""
        while not self._waiting:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._waiting = piece
        taken = self._waiting if size < 0 else self._waiting[:size]
        self._waiting = self._waiting[len(taken) :]
        self._read_bytes += len(taken)
        self._on_bytes(self._read_bytes)
        return taken

    def tell(self) -> int:
        """Returns how far it is."""
        return self._read_bytes

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Tells the length; it moves nowhere, and refuses to."""
        if whence == os.SEEK_END and not offset:
            return self._size_bytes
        if whence == os.SEEK_SET and offset == self._read_bytes:
            return offset
        raise io.UnsupportedOperation("it is read once, from its beginning")


def _header(path: Path, size: int) -> bytes:
    info = tarfile.TarInfo(path.name)
    info.size = size
    return info.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> int:
    return -size % tarfile.BLOCKSIZE
