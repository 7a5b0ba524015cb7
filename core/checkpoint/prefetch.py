"""A checkpoint that reads the tensors of the next block while the one before it is solved."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import torch

from core.checkpoint.aside import Aside, Piece
from core.checkpoint.reader import CheckpointReader
from core.profile import Work, span


class ReadAhead:
    """Hands out a checkpoint's tensors in one dtype; those that were announced are read beside the run.

    pinned: they wait in memory from which a CUDA device copies while the run goes on.

    One announcement at a time, so that memory holds one block more than the run's own. What the reader raises, the call
    that asks for the tensor raises.
    """

    def __init__(self, source: CheckpointReader, dtype: torch.dtype, *, pinned: bool = False) -> None:
        self._source = source
        self._pinned = pinned
        self._dtype = dtype
        self._thread = Aside("read-ahead")
        self._stopped = threading.Event()
        self._expected: frozenset[str] = frozenset()
        self._piece: Piece[dict[str, torch.Tensor]] | None = None
        self._read: dict[str, torch.Tensor] = {}

    def announce(self, names: Iterable[str]) -> None:
        """Begins to read; of an earlier announcement everything must have been asked for."""
        wanted = tuple(names)
        self._expected = frozenset(wanted)
        self._piece = self._thread.begin(lambda: self._tensors(wanted))

    def names(self) -> tuple[str, ...]:
        """Returns every tensor's name."""
        return self._source.names()

    def tensor(self, name: str) -> torch.Tensor:
        """Returns one tensor in this reader's dtype; raises as `CheckpointReader.tensor`."""
        if name in self._expected and self._piece is not None:
            piece, self._piece = self._piece, None
            self._read = piece.result()
        found = self._read.pop(name, None)
        return self._converted(name) if found is None else found

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the reading behind the tensor under way."""
        self._stopped.set()
        self._thread.__exit__(kind, error, trace)
        self._piece, self._read = None, {}

    def _tensors(self, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
        read: dict[str, torch.Tensor] = {}
        with span(Work.LOAD):
            for name in names:
                if self._stopped.is_set():
                    break
                read[name] = self._converted(name).pin_memory() if self._pinned else self._converted(name)
        return read

    def _converted(self, name: str) -> torch.Tensor:
        return self._source.tensor(name).to(self._dtype)
