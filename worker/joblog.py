"""Turns what a child prints and what its supervisor does into log lines that the job's owner may read.

Lines are numbered, cut to a length and rid of this machine's paths and of whatever looks like a key.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from store.jobs import LogLine

LINES_WAITING = 2000
"""While the database is away; older ones are dropped, which the numbers show."""
MAX_CHARS = 4000
SECRET = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{8,}|bm_[0-9a-f]+_[0-9a-f]+|AKIA[A-Z0-9]{16})\b|(?<=://)[^\s/:@]+:[^\s/@]+(?=@)"
)
CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")

Level = Literal["info", "warning", "error"]
Source = Literal["worker", "child"]


class JobLog:
    """The lines of one attempt that the database does not have yet. Written to by several threads."""

    def __init__(self, folders: Mapping[Path, str]) -> None:
        """folders: what to call each folder of this machine."""
        named = {str(path.resolve()): f"<{name}>" for path, name in folders.items()}
        named |= {str(path): f"<{name}>" for path, name in folders.items()}
        # The longest first: a folder may lie in another one.
        self._names = dict(sorted(named.items(), key=lambda item: len(item[0]), reverse=True))
        self._lock = threading.Lock()
        self._lines: deque[LogLine] = deque(maxlen=LINES_WAITING)
        self._count = 0

    def add(self, source: Source, text: str, level: Level = "info", **fields: str | float | None) -> None:
        """Adds a line."""
        cleaned = {name: self._clean(value) if isinstance(value, str) else value for name, value in fields.items()}
        text = self._clean(text)
        with self._lock:
            self._count += 1
            line = LogLine(
                number=self._count, at=datetime.now(UTC), level=level, source=source, text=text, fields=cleaned
            )
            self._lines.append(line)

    def waiting(self) -> tuple[LogLine, ...]:
        """Returns what is not written yet."""
        with self._lock:
            return tuple(self._lines)

    def forget(self, written: tuple[LogLine, ...]) -> None:
        """Drops lines that are in the database now; what was added since stays."""
        with self._lock:
            while written and self._lines and self._lines[0].number <= written[-1].number:
                self._lines.popleft()

    def _clean(self, text: str) -> str:
        for path, name in self._names.items():
            text = text.replace(path, name)
        text = CONTROL.sub("", SECRET.sub("<redacted>", text))
        return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}… ({len(text):,} characters)"
