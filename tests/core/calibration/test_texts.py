"""A calibration file is read whole or refused for what is wrong with it; the format is told by content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.calibration.texts import TextFormat, describe, read_documents
from core.errors import CalibrationProblem, CalibrationRefusedError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file name that says nothing about its format, as in the artifact store."""
    return tmp_path / "0f3a"


def refused(path: Path, problem: CalibrationProblem, **options: int) -> str:
    for read in (describe, lambda *args, **kwargs: list(read_documents(*args, **kwargs))):
        with pytest.raises(CalibrationRefusedError) as caught:
            read(path, **options)
        assert caught.value.problem == problem
        assert caught.value.hint
    return str(caught.value)


def test_a_text_is_one_document(path: Path):
    """Every character is kept, blank lines and the last line's missing end too; umlauts count as one character."""
    text = "\nFirst line, größer\n\n  second\tline"
    path.write_bytes(text.encode())
    assert list(read_documents(path)) == [text]
    facts = describe(path)
    assert facts.format == TextFormat.TEXT
    assert (facts.documents, facts.characters, facts.bytes) == (1, len(text), len(text.encode()))
    assert facts.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert facts.warnings == ()


@given(texts=st.lists(st.text(), min_size=1, max_size=6))
def test_json_lines_are_one_document_each(tmp_path_factory: pytest.TempPathFactory, texts: list[str]):
    """Any strings come back as they were, whatever other fields and blank lines stand around them."""
    path = tmp_path_factory.mktemp("set") / "x"
    path.write_text("\n".join(json.dumps({"id": 1, "text": text}) + "\n" for text in texts), encoding="utf-8")
    assert list(read_documents(path)) == texts
    assert describe(path).format == TextFormat.JSONL
    assert describe(path).documents == len(texts)


def test_a_byte_order_mark_is_no_text(path: Path):
    """Editors of some systems write one."""
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"text": "a"}).encode())
    assert list(read_documents(path)) == ["a"]


@pytest.mark.parametrize("content", [b"", b"\n \n\t\n", b"\xef\xbb\xbf\n"])
def test_empty_is_refused(path: Path, content: bytes):
    """Blank is empty."""
    path.write_bytes(content)
    refused(path, CalibrationProblem.EMPTY)


@pytest.mark.parametrize(
    "content",
    [
        b"text\nand\0more\n",
        b"\x89PNG\r\n\x1a\n",
        "größer\n".encode("latin-1"),
        "text\n".encode("utf-16"),
        b"\x1f\x8b\x08",
    ],
    ids=["zero byte", "picture", "Latin-1", "UTF-16", "gzip"],
)
def test_binary_is_refused(path: Path, content: bytes):
    """Whatever is not UTF-8 text, with the line where it shows."""
    path.write_bytes(content)
    assert "Line" in refused(path, CalibrationProblem.BINARY)


@pytest.mark.parametrize(
    "line", ['{"text": 3}', '{"prompt": "a"}', "[]", '"a"', '{"text": "a"', "plain text", "{" * 9999]
)
def test_a_malformed_line_is_refused_by_number(path: Path, line: str):
    """One bad line among good ones refuses the set; skipping it would change what was asked for."""
    path.write_text('{"text": "good"}\n' + line + "\n")
    assert "Line 2" in refused(path, CalibrationProblem.MALFORMED)


def test_a_file_that_opens_like_json_lines_must_be_json_lines(path: Path):
    """A first line that is cut off is a broken set and not a text."""
    path.write_text('{"text": "cut')
    refused(path, CalibrationProblem.MALFORMED)


def test_code_that_opens_with_a_brace_is_text(path: Path):
    """C and pretty-printed JSON are good calibration texts."""
    path.write_text("{\n  int a;\n}\n")
    assert describe(path).format == TextFormat.TEXT


def test_gigantic_is_refused_before_it_is_read(path: Path):
    """A sparse file of a terabyte is refused at once; the limit itself is allowed."""
    with path.open("wb") as file:
        file.truncate(10**12)
    refused(path, CalibrationProblem.TOO_LARGE)
    path.write_text("ab\nc")
    assert describe(path, max_bytes=4).bytes == 4
    refused(path, CalibrationProblem.TOO_LARGE, max_bytes=3)


def test_one_line_only_is_a_warning(path: Path):
    """Usable, but rarely meant."""
    path.write_text("all in one line " * 100)
    assert "single line" in describe(path).warnings[0]
    path.write_text('{"text": "only one"}\n')
    assert "single document" in describe(path).warnings[0]
