"""Listens to the hub client's progress bars: the bytes that have come, told a few times a second and drawn nowhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from huggingface_hub.utils.tqdm import tqdm

BYTES_BAR = "huggingface_hub.snapshot_download"
"""The client's name for the bar that counts the bytes of all files together."""
TOLD_SECONDS = 0.5


class ByteCount:
    """Counts bytes of several threads against a total; 0: it is not known, and nobody is told."""

    def __init__(self, total: int, on_bytes: Callable[[int, int], None]) -> None:
        self._total = total
        self._on_bytes = on_bytes
        self._done = 0
        self._told_at = 0.0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Takes bytes that came, or were there from an attempt before."""
        with self._lock:
            self._done = min(self._done + count, self._total)
            now = time.monotonic()
            if self._total and (now - self._told_at >= TOLD_SECONDS or self._done == self._total):
                self._told_at = now
                self._on_bytes(self._done, self._total)


def counting_bars(total: int, on_bytes: Callable[[int, int], None]) -> type[tqdm]:
    """Returns the class of bars for one download of so many bytes."""
    counted = ByteCount(total, on_bytes)

    class Bar(tqdm):
        def __init__(self, *args: Any, name: str | None = None, **options: Any) -> None:  # noqa: ANN401 - the client's
            self._counts = name == BYTES_BAR
            super().__init__(*args, name=name, **options)  # type: ignore[no-untyped-call]  # the client's has no types

        def update(self, n: float | None = 1) -> Any:  # noqa: ANN401 - the client's
            if self._counts:
                counted.add(int(n or 0))
            return super().update(n)

    return Bar
