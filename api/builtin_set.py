"""Stores the built-in offline text as a calibration set, so that no job depends on a worker's Python version."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass

from core.calibration.builtin import BUILTIN_NAME, builtin_text
from store.artifacts import ArtifactStore
from store.jobs import CalibrationSet, NewCalibrationSet
from store.session import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredText:
    """The text's bytes as they lie in the object store."""

    sha256: str
    size_bytes: int
    documents: int


class BuiltinSet:
    """Writes the text's bytes once per process, and a row for each owner that asks."""

    def __init__(self, database: Database, artifacts: ArtifactStore) -> None:
        self._database = database
        self._artifacts = artifacts
        self._lock = threading.Lock()
        self._text: StoredText | None = None

    def for_owner(self, owner_id: str) -> CalibrationSet:
        """Returns the owner's set; the same row on every call."""
        with self._lock:
            text = self._text = self._text or self._store_text()
        with self._database.transaction() as repository:
            return repository.add_calibration_set(
                NewCalibrationSet(
                    owner_key_id=owner_id,
                    name=BUILTIN_NAME,
                    format="jsonl",
                    sha256=text.sha256,
                    size_bytes=text.size_bytes,
                    documents=text.documents,
                )
            )

    def _store_text(self) -> StoredText:
        documents = builtin_text("calibration")
        content = "".join(json.dumps({"text": document}, ensure_ascii=False) + "\n" for document in documents)
        sha256, size_bytes = self._artifacts.put_bytes(content.encode())
        return StoredText(sha256=sha256, size_bytes=size_bytes, documents=len(documents))
