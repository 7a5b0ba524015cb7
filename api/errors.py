"""What the edge itself refuses: one class per reason, each with its whole answer. `api.refusals` maps the others."""

from __future__ import annotations

import math

from api.problems import FieldProblem, Refusal
from api.sessions import COOKIE

RETRY_AFTER_S = 5
TRY_AGAIN = {"Retry-After": str(RETRY_AFTER_S)}


class ApiError(Exception):
    """Base of what the edge itself refuses; `refusal` is the whole answer."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.detail)


class UnauthenticatedError(ApiError):
    """No bearer key where one is needed, or one that is unknown, expired or revoked."""

    def __init__(self, detail: str) -> None:
        super().__init__(
            Refusal(
                status=401,
                code="unauthenticated",
                detail=detail,
                hint="Send 'Authorization: Bearer bm_...'; an operator makes keys with 'bitmill keys create'.",
                headers={"WWW-Authenticate": 'Bearer realm="bitmill"'},
            )
        )


class ForbiddenError(ApiError):
    """The key is valid but lacks the scope."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        super().__init__(
            Refusal(
                status=403,
                code="missing_scope",
                detail=f"This key lacks the scope {scope!r}.",
                hint=f"Use a key that was created with the scope {scope!r}.",
                headers={"WWW-Authenticate": f'Bearer realm="bitmill", error="insufficient_scope", scope="{scope}"'},
            )
        )


class SessionOverError(ApiError):
    """The cookie names a session that is over; the answer takes the cookie away, so that the next request has none."""

    def __init__(self, path: str) -> None:
        super().__init__(
            Refusal(
                status=401,
                code="session_over",
                detail="The session is over, or its key was revoked.",
                hint="Sign in again.",
                headers={"Set-Cookie": f"{COOKIE}=; Max-Age=0; Path={path}; HttpOnly; SameSite=lax"},
            )
        )


class CsrfError(ApiError):
    """A write with a session's cookie alone: another site's page could have sent it."""

    def __init__(self, header: str) -> None:
        super().__init__(
            Refusal(
                status=403,
                code="csrf_token_wrong",
                detail=f"A write with a session's cookie needs its token in {header}.",
                hint="Read it from GET /v1/session.",
                errors=(FieldProblem(header=header, detail="is missing or of another session"),),
            )
        )


class HubTokenMissingError(ApiError):
    """Something is to be done at the hub in the caller's name, without its token."""

    def __init__(self) -> None:
        super().__init__(
            Refusal(
                status=409,
                code="hub_token_missing",
                detail="This key has no hub token to upload with.",
                hint="Store one that may write with PUT /v1/hub-token.",
            )
        )


class RateLimitedError(ApiError):
    """The key asks more often than it may."""

    def __init__(self, per_minute: int, wait_seconds: float) -> None:
        self.wait_seconds = wait_seconds
        super().__init__(
            Refusal(
                status=429,
                code="rate_limited",
                detail=f"The key may send {per_minute:,} requests a minute.",
                hint="Wait as long as Retry-After says; poll with If-None-Match, or follow a stream of events.",
                retryable=True,
                headers={"Retry-After": str(math.ceil(wait_seconds))},
            )
        )


class InvalidRequestError(ApiError):
    """A part of the request breaks a rule that its type alone cannot state."""

    def __init__(self, code: str, detail: str, error: FieldProblem, *, status: int = 422, hint: str = "") -> None:
        super().__init__(Refusal(status=status, code=code, detail=detail, hint=hint, errors=(error,)))


class TooLargeError(ApiError):
    """The body is larger than the route takes."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        detail = f"The request body is larger than the {limit_bytes:,} bytes that are accepted here."
        super().__init__(Refusal(status=413, code="body_too_large", detail=detail, hint="Send less."))


class UploadBrokenError(ApiError):
    """The upload did not arrive whole."""

    def __init__(self, detail: str) -> None:
        super().__init__(
            Refusal(status=408, code="upload_incomplete", detail=detail, hint="Upload it again.", retryable=True)
        )


class RangeNotSatisfiableError(ApiError):
    """No byte of the representation lies in the range that was asked for."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(
            Refusal(
                status=416,
                code="range_not_satisfiable",
                detail=f"The representation has {size_bytes:,} bytes; the range lies outside.",
                hint="Ask for a range within the size, or leave out the Range header.",
                headers={"Content-Range": f"bytes */{size_bytes}", "Accept-Ranges": "bytes"},
            )
        )


class TooManyStreamsError(ApiError):
    """The service holds as many live streams as it may, or is about to end."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(
            Refusal(
                status=503,
                code="too_many_streams",
                detail=f"The service serves {limit:,} live streams at a time, and all are taken.",
                hint="Poll instead, or try again later.",
                retryable=True,
                headers=TRY_AGAIN,
            )
        )


class PreconditionFailedError(ApiError):
    """If-Match names another representation."""

    def __init__(self) -> None:
        super().__init__(
            Refusal(
                status=412,
                code="precondition_failed",
                detail="The representation is not the one that If-Match names.",
                hint="Read its current ETag and ask again.",
            )
        )
