"""Reads a multipart/form-data body as it arrives: one file whose bytes pass through, one optional name.

It touches no disk and holds no text; `api.uploads` writes the bytes.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from api.errors import InvalidRequestError
from api.problems import FieldProblem

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FILE_PART = "file"
NAME_PART = "name"
PARTS = frozenset({FILE_PART, NAME_PART})
NAME_MAX_BYTES = 400


class UploadForm:
    """Fed with the body in pieces of any size; gives the file's bytes back piece by piece, holding none.

    Raises InvalidRequestError on a malformed body and on parts that are not taken.
    """

    def __init__(self, content_type: str) -> None:
        """content_type: of the request; it carries the boundary."""
        self.file_name = ""
        self._name = bytearray()
        self._pending: list[bytes] = []
        self._parts_seen: set[str] = set()
        self._ended = False
        self._part_name = ""
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        _, options = parse_options_header(content_type)
        try:
            self._parser = MultipartParser(options.get(b"boundary", b""), self._callbacks())
        except FormParserError as error:
            raise _malformed(str(error)) from error

    @property
    def name(self) -> str:
        """The name that the client gave: its own field, else the file's, without folders."""
        return self._name.decode("utf-8", "replace") or PurePosixPath(self.file_name.replace("\\", "/")).name

    def feed(self, data: bytes) -> list[bytes]:
        """Takes a piece of the body and returns the pieces of the file that were in it."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _malformed(str(error)) from error
        pieces, self._pending = self._pending, []
        return pieces

    def finish(self) -> None:
        """Raises InvalidRequestError where the body ended too early or had no file in it."""
        if not self._ended:
            raise _malformed("the last boundary is missing")
        if FILE_PART not in self._parts_seen:
            raise _refused_part(FILE_PART, "missing")

    def _callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_end": self._on_end,
        }

    def _on_part_begin(self) -> None:
        self._headers = {}

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        self._part_name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._part_name not in PARTS:
            raise _refused_part(self._part_name, "unknown part; 'file' and 'name' are taken")
        if self._part_name in self._parts_seen:
            raise _refused_part(self._part_name, "given twice")
        self._parts_seen.add(self._part_name)
        if self._part_name == FILE_PART:
            self.file_name = options.get(b"filename", b"").decode("utf-8", "replace")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part_name == FILE_PART:
            self._pending.append(data[start:end])
            return
        self._name += data[start:end]
        if len(self._name) > NAME_MAX_BYTES:
            raise _refused_part(NAME_PART, f"longer than {NAME_MAX_BYTES} bytes")

    def _on_end(self) -> None:
        self._ended = True


def _malformed(reason: str) -> InvalidRequestError:
    return InvalidRequestError(
        "malformed_multipart",
        f"The multipart body cannot be read: {reason}.",
        FieldProblem(pointer="#", detail=reason),
        status=400,
        hint="Send multipart/form-data with the content in the part 'file'.",
    )


def _refused_part(part: str, reason: str) -> InvalidRequestError:
    return InvalidRequestError(
        "invalid_request",
        f"The multipart part {part!r} is refused: {reason}.",
        FieldProblem(pointer=f"#/{part}", detail=reason),
        hint="Send the content in the part 'file' and, if you like, a name in the part 'name'.",
    )
