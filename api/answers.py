"""Answers a read with its version: 304 where the caller has it already, else the body with ETag and a polling hint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fastapi import Request, Response

from api.conditional import not_modified

V = TypeVar("V")

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "If-None-Match names this version"}}


def versioned(
    request: Request, response: Response, etag: str, view: Callable[[], V], headers: Mapping[str, str] | None = None
) -> V | Response:
    """Returns the view, with the headers set on `response`, or a bare 304; the view is built only where it is sent."""
    unchanged = unchanged_since(request, etag, headers)
    if unchanged is not None:
        return unchanged
    response.headers.update({"ETag": etag, **(headers or {})})
    return view()


def unchanged_since(request: Request, etag: str, headers: Mapping[str, str] | None = None) -> Response | None:
    """Returns a bare 304 where the caller has this version already."""
    if not not_modified(request.headers, etag):
        return None
    return Response(status_code=304, headers={"ETag": etag, **(headers or {})})
