"""Turns away requests before any route sees them: foreign hosts, cross-origin or form-encoded writes, large bodies.

Pure ASGI, so that streamed bodies and answers pass through without being held. It knows nothing of keys.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import FieldProblem, Refusal, problem_response
from api.settings import ApiSettings, is_loopback

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
TEXTS_PATH = "/v1/calibration-sets"
MODELS_PATH = "/v1/uploaded-models"
UPLOAD_PATHS = frozenset({TEXTS_PATH, MODELS_PATH})
# A multipart envelope around the file: boundaries, part headers and the name field.
MULTIPART_OVERHEAD_BYTES = 64 * 1024


class GateMiddleware:
    """Applies the rules in the order: address, host, origin, media type, size."""

    def __init__(self, app: ASGIApp, settings: ApiSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a problem at once, or hands the request on with its body counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refuse(scope, Headers(scope=scope))
        if refusal is not None:
            await problem_response(refusal, scope)(scope, receive, send)
            return
        await self._app(scope, _counted(receive, self._limit(scope)), send)

    def _limit(self, scope: Scope) -> int:
        if scope["path"] == TEXTS_PATH:
            return self._settings.max_calibration_bytes + MULTIPART_OVERHEAD_BYTES
        if scope["path"] == MODELS_PATH:
            return self._settings.max_model_bytes + MULTIPART_OVERHEAD_BYTES
        return self._settings.max_body_bytes

    def _refuse(self, scope: Scope, headers: Headers) -> Refusal | None:
        if self._settings.loopback:
            refusal = _refuse_address(scope) or _refuse_host(headers)
            if refusal is not None:
                return refusal
        if scope["method"] in SAFE_METHODS:
            return None
        return (
            _refuse_origin(headers) or _refuse_media_type(scope, headers) or _refuse_size(headers, self._limit(scope))
        )


def _refuse_address(scope: Scope) -> Refusal | None:
    """Fails closed where the server listens wider than BITMILL_HOST says: the keyless mode is for loopback only."""
    server = scope.get("server")
    if server is None or server[1] is None or is_loopback(server[0]):
        return None
    return Refusal(
        status=403,
        code="binding_mismatch",
        detail="The server listens on a reachable address, but is configured for loopback without keys.",
        hint="Set BITMILL_HOST to the address that it is bound to, and create a key.",
    )


def _refuse_host(headers: Headers) -> Refusal | None:
    host = headers.get("host", "")
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if name.lower() in LOOPBACK_NAMES:
        return None
    return Refusal(
        status=403,
        code="host_refused",
        detail="This service listens on loopback and answers only to localhost, 127.0.0.1 and [::1].",
        hint="Use one of these names, or bind to another address with a key.",
        errors=(FieldProblem(header="Host", detail="must be localhost, 127.0.0.1 or [::1]"),),
    )


def _refuse_origin(headers: Headers) -> Refusal | None:
    """A browser names the page that a write comes from; programs send neither header."""
    site = headers.get("sec-fetch-site", "same-origin")
    origin = headers.get("origin")
    foreign = origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
    if site in {"same-origin", "none"} and not foreign:
        return None
    return Refusal(
        status=403,
        code="cross_origin_refused",
        detail="Writes from pages of another origin are refused.",
        hint="Use the page that this service serves, or a program that sends no Origin.",
        errors=(FieldProblem(header="Origin", detail="is not the origin of this service"),),
    )


def _refuse_media_type(scope: Scope, headers: Headers) -> Refusal | None:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    wanted = "multipart/form-data" if scope["path"] in UPLOAD_PATHS else "application/json"
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    if media_type == wanted or (not media_type and not has_body):
        return None
    return Refusal(
        status=415,
        code="unsupported_media_type",
        detail=f"The body's media type is {media_type or 'not given'!r}.",
        hint=f"Send 'Content-Type: {wanted}'.",
        headers={"Accept": wanted},
        errors=(FieldProblem(header="Content-Type", detail=f"must be {wanted}"),),
    )


def _refuse_size(headers: Headers, limit: int) -> Refusal | None:
    length = headers.get("content-length", "0")
    return _too_large(limit) if length.isdigit() and int(length) > limit else None


def _too_large(limit: int) -> Refusal:
    return Refusal(
        status=413,
        code="body_too_large",
        detail=f"The request body is larger than the {limit:,} bytes that are accepted here.",
        hint="Send less.",
    )


def _counted(receive: Receive, limit: int) -> Receive:
    """Bodies without a length are counted as they come."""
    received = 0

    async def receive_counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise HTTPException(413, _too_large(limit).detail)
        return message

    return receive_counted
