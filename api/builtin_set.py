"""Stores the built-in offline text as a calibration set of its owner, so that a job never depends on a Python version."""

from __future__ import annotations

import json

from api.services import Services
from core.calibration.builtin import builtin_text
from store.jobs import CalibrationSet

NAME = "builtin"


def store_builtin_set(services: Services, owner_id: str) -> CalibrationSet:
    """Returns the owner's set of the text; the same text is stored once."""
    documents = builtin_text("calibration")
    content = "".join(json.dumps({"text": document}, ensure_ascii=False) + "\n" for document in documents).encode()
    sha256, size_bytes = services.artifacts.put_bytes(content)
    with services.database.transaction() as repository:
        return repository.add_calibration_set(
            owner_key_id=owner_id,
            name=NAME,
            format="jsonl",
            sha256=sha256,
            size_bytes=size_bytes,
            documents=len(documents),
        )
