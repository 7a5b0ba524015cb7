"""Gives every request an id, a log line, a measurement and the security headers; also the last handler of all errors.

Pure ASGI: it stands outside everything else, so that refusals and failures carry the same headers.
"""

from __future__ import annotations

import re
import time
import uuid
from contextlib import AbstractContextManager, nullcontext

import structlog
from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, StatusCode
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.metrics import Metrics
from api.problems import problem_response
from api.refusals import refusal_of
from store.tracing import Tracing

REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
# Answers may be kept but must be revalidated: rows change, and what one key sees is nobody else's.
DEFAULT_CACHE_CONTROL = "private, no-cache"


UNTRACED = frozenset({"/livez", "/readyz", "/metrics"})
"""Asked every few seconds by machines."""
FIRST_SERVER_ERROR = 500


class ContextMiddleware:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing
        self._log = structlog.get_logger("bitmill.api")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs one request; an answer that has begun cannot be replaced, so its failure breaks the connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope))
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        status: int | None = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(MutableHeaders(scope=message), request_id)
            await send(message)

        log = self._log.bind(request_id=request_id, method=scope["method"], path=scope["path"])
        with self._span(scope, request_id) as span:
            try:
                await self._app(scope, receive, send_with_headers)
            except Exception as error:
                log.exception("request_failed")
                if status is not None:
                    raise
                await problem_response(refusal_of(error), scope)(scope, receive, send_with_headers)
            finally:
                seconds = time.perf_counter() - started
                self._metrics.observe_request(scope, status, seconds)
                _describe(span, scope, status)
                log.info("request", status=status, milliseconds=round(seconds * 1000, 2))

    def _span(self, scope: Scope, request_id: str) -> AbstractContextManager[Span]:
        """Opens a span for a request; it goes on with a caller's trace where the caller names one."""
        if scope["path"] in UNTRACED:
            return nullcontext(trace.INVALID_SPAN)
        headers = Headers(scope=scope)
        return self._tracing.tracer.start_as_current_span(
            scope["method"],
            context=propagate.extract(dict(headers)),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": scope["method"], "bitmill.request_id": request_id},
        )


def _describe(span: Span, scope: Scope, status: int | None) -> None:
    """Names a request's span by its route, once that is known: paths hold ids and would never end."""
    route = getattr(scope.get("route"), "path", "unmatched")
    span.update_name(f"{scope['method']} {route}")
    span.set_attributes({"http.route": route, "http.response.status_code": status or 0})
    if status is None or status >= FIRST_SERVER_ERROR:
        span.set_status(StatusCode.ERROR)


def _request_id(headers: Headers) -> str:
    """Takes over a caller's id where it is harmless in a log, else makes one."""
    given = headers.get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"


def _add_headers(headers: MutableHeaders, request_id: str) -> None:
    headers["X-Request-Id"] = request_id
    headers.setdefault("Cache-Control", DEFAULT_CACHE_CONTROL)
    for name, value in SECURITY_HEADERS.items():
        headers.setdefault(name, value)
