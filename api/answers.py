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
    extra = {"ETag": etag, **(headers or {})}
    if not_modified(request.headers, etag):
        return Response(status_code=304, headers=extra)
    response.headers.update(extra)
    return view()
