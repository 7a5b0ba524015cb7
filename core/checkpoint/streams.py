"""Writes large files beside a run: while one chunk is hashed and written, the next one is made."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from core.checkpoint.aside import Aside, Piece
from core.checkpoint.durable import Bytes, HashedFile

WAITING_BYTES: Final = 8 << 20
"""What may wait for the disk; a chunk that is larger by itself waits alone behind the one under way."""


class StreamWriter:
    """Writes files one after the other; a file is whole once its piece has a result."""

    def __init__(self) -> None:
        """Starts the thread."""
        self._thread = Aside("files")
        self._files: list[HashedFile] = []
        self._waiting: deque[tuple[int, Piece[None]]] = deque()

    def write(self, path: Path, chunks: Iterable[Bytes]) -> Piece[str]:
        """Takes a file's chunks, in order; the piece's result is the SHA-256 of the file, which is on the disk then.

        Raises what the chunks raise, and what went wrong with chunks before.
        """
        file = HashedFile(path)
        self._files.append(file)
        for chunk in chunks:
            self._waiting.append((memoryview(chunk).nbytes, self._thread.begin(partial(file.write, chunk))))
            self._wait_for_room()
        while self._waiting:
            self._waiting.popleft()[1].result()
        return self._thread.begin(file.finish)

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for what is under way and closes every file."""
        self._thread.__exit__(kind, error, trace)
        for file in self._files:
            file.close()

    def _wait_for_room(self) -> None:
        while len(self._waiting) > 1 and sum(nbytes for nbytes, _ in self._waiting) > WAITING_BYTES:
            self._waiting.popleft()[1].result()
