"""Reads the conditional and range headers of RFC 9110 and says what they ask for; it sends nothing.

A Range header with several ranges is answered with the whole representation, as section 14.2 allows: no client of
large files needs more than one, and many small ones are a way to make a server work for nothing.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from starlette.datastructures import Headers

from api.errors import PreconditionFailedError, RangeNotSatisfiableError

ENTITY_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
ONE_RANGE = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes start to end of a representation, end excluded."""

    start: int
    end: int


def weak_etag(version: object) -> str:
    """Returns the tag of a representation that is equal in meaning, not in every byte."""
    return f'W/"{version}"'


def strong_etag(sha256: str) -> str:
    """Returns the tag of exact bytes."""
    return f'"{sha256}"'


def repr_digest(sha256: str) -> str:
    """Returns the value of Repr-Digest (RFC 9530): of the whole file, also on a partial answer."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"


def not_modified(headers: Headers, etag: str) -> bool:
    """Returns whether If-None-Match names this tag, by weak comparison."""
    given = headers.get("if-none-match")
    return given is not None and (given.strip() == "*" or _opaque(etag) in map(_opaque, ENTITY_TAG.findall(given)))


def require_match(headers: Headers, etag: str) -> None:
    """Raises PreconditionFailedError where If-Match names only other tags, by strong comparison."""
    given = headers.get("if-match")
    if given is not None and given.strip() != "*" and etag not in ENTITY_TAG.findall(given):
        raise PreconditionFailedError


def requested_range(headers: Headers, etag: str, size: int) -> ByteRange | None:
    """Returns the one range that is asked for, or None for the whole.

    None too where the header is malformed, names several ranges, or comes with an If-Range that no longer holds.
    Raises RangeNotSatisfiableError where no byte lies in the range.
    """
    condition = headers.get("if-range")
    if condition is not None and condition.strip() != etag:
        return None
    match = ONE_RANGE.fullmatch(headers.get("range", ""))
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        return _suffix(int(last), size)
    start, end = int(first), min(int(last) + 1, size) if last else size
    if last and int(last) < start:
        return None
    if start >= size:
        raise RangeNotSatisfiableError(size)
    return ByteRange(start, end)


def _suffix(length: int, size: int) -> ByteRange:
    if length == 0 or size == 0:
        raise RangeNotSatisfiableError(size)
    return ByteRange(max(size - length, 0), size)


def _opaque(tag: str) -> str:
    return tag.removeprefix("W/")
