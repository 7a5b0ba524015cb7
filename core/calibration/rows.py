"""Reads rows of a data set's file (Parquet, JSON Lines, text; plain, gzip or zstandard) into documents, up to a limit.

Nothing of a file is executed, and no more is read than the limit says.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from core.calibration.documents import Conversation, Document, conversation_from, text_of
from core.calibration.hub import USUAL_COLUMNS, HubDataset
from core.errors import CalibrationProblem, CalibrationRefusedError

MAX_CHARACTERS: Final = 16_000_000
"""About four million tokens, far more than any calibration draws."""
MAX_LINE: Final = 8 << 20
BATCH_ROWS: Final = 512
COMPRESSIONS: Final = {".gz": "gzip", ".zst": "zstd"}


def write_documents(path: Path, dataset: HubDataset, out: Path, max_characters: int = MAX_CHARACTERS) -> int:
    """Writes the file's documents as JSON Lines, the first ones up to the limit; returns how many.

    path: named as on the hub, since its ending tells the format. Raises CalibrationRefusedError (DATASET_UNUSABLE)
    where it cannot be read or has no column of text.
    """
    try:
        documents = list(_limited(_documents(path, dataset), max_characters))
    except (pa.ArrowException, OSError, UnicodeDecodeError, ValueError) as error:
        raise _unusable(dataset, f"{path.name} cannot be read: {error}") from error
    if dataset.joined and documents:
        documents = ["".join(text_of(document) for document in documents)]
    if not documents:
        raise _unusable(dataset, f"{path.name} holds no text")
    with out.open("w", encoding="utf-8") as file:
        for document in documents:
            file.write(json.dumps(_record(document), ensure_ascii=False) + "\n")
    return len(documents)


def _record(document: Document) -> Mapping[str, Any]:
    if isinstance(document, Conversation):
        return {"messages": document.to_messages()}
    return {"text": document}


def _limited(documents: Iterable[Document], max_characters: int) -> Iterator[Document]:
    room = max_characters
    for document in documents:
        room -= len(text_of(document))
        if room < 0:
            return
        yield document


def _documents(path: Path, dataset: HubDataset) -> Iterator[Document]:
    if path.name.endswith(".txt"):
        yield path.read_text("utf-8")
        return
    column = dataset.column
    for row in _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path):
        column = column or _usual_column(row, dataset)
        if column not in row:
            raise _unusable(dataset, f"it has no column {column!r}, but {', '.join(sorted(row))}")
        document = _document(row[column])
        if document is None:
            raise _unusable(dataset, f"column {column!r} holds neither text nor messages with role and content")
        if text_of(document):
            yield document


def _usual_column(row: Mapping[str, Any], dataset: HubDataset) -> str:
    for name in USUAL_COLUMNS:
        if name in row:
            return name
    raise _unusable(dataset, f"it has none of the columns {', '.join(USUAL_COLUMNS)}, but {', '.join(sorted(row))}")


def _document(value: object) -> Document | None:
    return value if isinstance(value, str) else conversation_from(value)


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            yield from batch.to_pylist()


def _json_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with pa.input_stream(str(path), compression=COMPRESSIONS.get(path.suffix)) as stream:
        reader = io.BufferedReader(stream)
        while line := reader.readline(MAX_LINE + 1):
            if len(line) > MAX_LINE:
                raise ValueError(f"a line is longer than {MAX_LINE:,} bytes")
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("a line is no JSON object")
                yield row


def _unusable(dataset: HubDataset, reason: str) -> CalibrationRefusedError:
    return CalibrationRefusedError(
        CalibrationProblem.DATASET_UNUSABLE,
        f"The data set {dataset.repo} cannot be calibrated on: {reason}.",
        f"Name a file and a column: hub:{dataset.repo}:PATTERN#COLUMN.",
    )
