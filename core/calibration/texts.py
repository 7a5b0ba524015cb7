"""Reads a calibration file, plain text or JSON Lines of texts or conversations, into documents; refuses all else.

The format is told from the content, since stored sets have no file name. It does not tokenize. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NoReturn

from core.calibration.documents import MESSAGES_FORM, Document, conversation_from
from core.calibration.lint import lint
from core.errors import CalibrationProblem, CalibrationRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_TEXT_BYTES = 64 * 2**20  # about 16 million tokens, far more than any calibration uses
BOM = b"\xef\xbb\xbf"


class TextFormat(StrEnum):
    """How a calibration file holds its documents."""

    TEXT = "text"
    """The whole file is one document."""
    JSONL = "jsonl"
    """Each line is a JSON object whose "text" is one document, or whose "messages" are one conversation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFacts:
    """What a calibration file is.

    bytes and sha256 are of the file as it lies there, characters of its documents; conversations are documents too.
    estimated_tokens: from characters, since counting takes a model's tokenizer.
    """

    format: TextFormat
    documents: int
    conversations: int
    characters: int
    estimated_tokens: int
    bytes: int
    sha256: str
    warnings: tuple[str, ...] = ()


def describe(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> TextFacts:
    """Returns the facts of a calibration file, having read all of it.

    Raises CalibrationRefusedError: EMPTY, BINARY (a NUL byte, or not UTF-8), MALFORMED (a line of a JSON Lines file is
    no object with a string "text" or with "messages"), TOO_LARGE.
    """
    _refuse_size(path, max_bytes)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    found = lint(read_documents(path, max_bytes))
    single = found.documents == 1 and _format_of(path) is TextFormat.JSONL
    return TextFacts(
        format=_format_of(path),
        documents=found.documents,
        conversations=found.conversations,
        characters=found.characters,
        estimated_tokens=found.estimated_tokens,
        bytes=path.stat().st_size,
        sha256=digest.hexdigest(),
        warnings=("The calibration text is one single document.",) if single else found.warnings,
    )


def read_documents(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> Iterator[Document]:
    """Yields the documents in file order; raises what `describe` raises, when the place is reached."""
    _refuse_size(path, max_bytes)
    if _format_of(path) == TextFormat.TEXT:
        yield "".join(line for _, line in _lines(path))
        return
    for number, line in _lines(path):
        if line.strip():
            yield _document_of(number, line)


def _refuse_size(path: Path, max_bytes: int) -> None:
    size = path.stat().st_size
    if size > max_bytes:
        raise CalibrationRefusedError(
            CalibrationProblem.TOO_LARGE,
            f"The calibration text has {size:,} bytes, the limit is {max_bytes:,}.",
            "Give a part of it: a few megabytes hold more tokens than a calibration uses.",
        )


def _format_of(path: Path) -> TextFormat:
    """Tells the format by the first line that is not blank: JSON Lines opens with a brace and a quoted name."""
    for _, line in _lines(path):
        start = line.split()
        if start:
            opens_object = start[0].startswith('{"') or (start[0] == "{" and len(start) > 1 and start[1][0] == '"')
            return TextFormat.JSONL if opens_object else TextFormat.TEXT
    raise CalibrationRefusedError(
        CalibrationProblem.EMPTY, "The calibration text is empty.", "Give a text, or use the built-in set."
    )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields line number (from 1) and line with its end; a byte order mark is dropped."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            line = raw.removeprefix(BOM) if number == 1 else raw
            if b"\0" in line:
                _refuse_binary(number, "holds a zero byte")
            try:
                yield number, line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise _binary(number, "is not UTF-8") from error


def _document_of(number: int, line: str) -> Document:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _malformed(number, "is not JSON") from error
    document = record_document(record)
    if document is None:
        raise _malformed(number, 'is not an object with a string "text", or with "messages" that have role and content')
    return document


def record_document(record: object) -> Document | None:
    """Returns the document that a record of JSON Lines is; None where it is none."""
    if not isinstance(record, dict):
        return None
    if "messages" in record:
        return conversation_from(record["messages"])
    text = record.get("text")
    return text if isinstance(text, str) else None


def _binary(number: int, reason: str) -> CalibrationRefusedError:
    return CalibrationRefusedError(
        CalibrationProblem.BINARY,
        f"Line {number} of the calibration file {reason}.",
        "Give plain text or JSON Lines in UTF-8.",
    )


def _refuse_binary(number: int, reason: str) -> NoReturn:
    raise _binary(number, reason)


def _malformed(number: int, reason: str) -> CalibrationRefusedError:
    return CalibrationRefusedError(
        CalibrationProblem.MALFORMED,
        f"Line {number} of the calibration file {reason}.",
        f'Each line must be like {{"text": "..."}} or {MESSAGES_FORM}; or give plain text.',
    )
