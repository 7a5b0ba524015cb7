"""Maps every error that can reach the edge to one (HTTP status, code); the only place where that is decided.

The worker has its own table of the same errors for a job's outcome.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.problems import FieldProblem, Refusal, problem_response
from core.errors import (
    CalibrationProblem,
    CalibrationRefusedError,
    CoreError,
    InsufficientResourcesError,
    InvalidConfigError,
    ModelRefusedError,
    TargetRefusedError,
)
from store.errors import (
    IdempotencyConflictError,
    NotFoundError,
    StorageUnavailableError,
    StoreError,
    WrongStateError,
)

RETRY_AFTER_S = 5
TRY_AGAIN = {"Retry-After": str(RETRY_AFTER_S)}
CODES_OF_STATUS = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}


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


def refusal_of(error: Exception) -> Refusal:
    """Returns what to answer for an error; anything unknown is a 500 that says nothing of its insides."""
    if isinstance(error, ApiError):
        return error.refusal
    if isinstance(error, CoreError):
        return _core_refusal(error)
    if isinstance(error, StoreError):
        return _store_refusal(error)
    return Refusal(
        status=500,
        code="internal_error",
        detail="The service failed on this request. The request id finds the reason in its log.",
        hint="Report the request id to the operator.",
        retryable=True,
    )


def _core_refusal(error: CoreError) -> Refusal:
    status, pointer = 422, None
    if isinstance(error, InvalidConfigError | TargetRefusedError):
        pointer = "#/" + error.field.replace(".", "/")
    elif isinstance(error, ModelRefusedError):
        pointer = "#/model"
    elif isinstance(error, CalibrationRefusedError):
        pointer = "#/file"
        status = 413 if error.problem is CalibrationProblem.TOO_LARGE else 422
    elif isinstance(error, InsufficientResourcesError):
        status = 507
    errors = (FieldProblem(pointer=pointer, detail=_reason(error)),) if pointer else ()
    return Refusal(status=status, code=error.code, detail=_detail(error), hint=error.hint, errors=errors)


def _detail(error: CoreError) -> str:
    """The sentence without the hint, which has a place of its own."""
    if isinstance(error, ModelRefusedError | CalibrationRefusedError):
        return error.detail
    if isinstance(error, TargetRefusedError):
        return f"{error.target} cannot load this artifact ({error.field}): {error.reason}"
    return str(error)


def _reason(error: CoreError) -> str:
    if isinstance(error, InvalidConfigError):
        return f"{error.reason}; allowed: {error.allowed}"
    if isinstance(error, TargetRefusedError):
        return error.reason
    return _detail(error)


def _store_refusal(error: StoreError) -> Refusal:
    detail = str(error)
    if isinstance(error, NotFoundError) and error.kind != "blob":
        return Refusal(status=404, code=error.code, detail=detail, hint="Check the id, and that this key may see it.")
    if isinstance(error, WrongStateError):
        return Refusal(status=409, code=error.code, detail=detail, hint="Read the job's state first.")
    if isinstance(error, IdempotencyConflictError):
        reused = FieldProblem(header="Idempotency-Key", detail="used before with another request")
        return Refusal(status=422, code=error.code, detail=detail, hint="Use a new key.", errors=(reused,))
    if isinstance(error, StorageUnavailableError):
        detail, hint = f"{error.what} did not answer.", "Send the same request again a little later."
        return Refusal(status=503, code=error.code, detail=detail, hint=hint, retryable=True, headers=TRY_AGAIN)
    code = "blob_missing" if isinstance(error, NotFoundError) else error.code
    return Refusal(status=500, code=code, detail="Stored data cannot be used.", hint="Report the request id.")


def _validation_refusal(error: RequestValidationError) -> Refusal:
    problems = tuple(_field_problem(item) for item in error.errors())
    if any(item["type"] == "json_invalid" for item in error.errors()):
        return Refusal(
            status=400,
            code="malformed_json",
            detail="The body is not JSON.",
            hint="Send a JSON object.",
            errors=problems,
        )
    places = ", ".join(problem.pointer or problem.parameter or problem.header or "body" for problem in problems)
    return Refusal(
        status=422,
        code="invalid_request",
        detail=f"The request does not fit the schema at: {places}.",
        hint="Correct the named fields; /openapi.json has the schema.",
        errors=problems,
    )


def _field_problem(item: dict[str, Any]) -> FieldProblem:
    where, *path = item["loc"]
    detail = str(item["msg"])
    if item["type"] == "json_invalid":
        return FieldProblem(pointer="#", detail=f"{item['ctx']['error']} at character {path[0]}")
    if where == "body":
        return FieldProblem(pointer="#" + "".join(f"/{_escape(str(part))}" for part in path), detail=detail)
    # A parameter may be repeated; what follows its name is which of its values it was.
    name = str(path[0])
    return (
        FieldProblem(header=name, detail=detail) if where == "header" else FieldProblem(parameter=name, detail=detail)
    )


def _escape(part: str) -> str:
    """Escapes one reference token of a JSON pointer (RFC 6901)."""
    return part.replace("~", "~0").replace("/", "~1")


def install(app: FastAPI) -> None:
    """Registers one handler per family of errors; what none of them takes is the last handler's (api.context)."""

    async def answer(request: Request, error: Exception) -> Response:
        refusal = refusal_of(error)
        if refusal.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            # The answer keeps the reason to itself; the log must not.
            log = structlog.get_logger("bitmill.api").bind(request_id=request.scope["state"]["request_id"])
            log.error("request_failed", code=refusal.code, reason=str(error))
        return problem_response(refusal, request.scope)

    async def answer_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class only
        return problem_response(_validation_refusal(error), request.scope)

    async def answer_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
        code = CODES_OF_STATUS.get(error.status_code, "http_error")
        refusal = Refusal(status=error.status_code, code=code, detail=str(error.detail), headers=error.headers or {})
        return problem_response(refusal, request.scope)

    for kind in (ApiError, CoreError, StoreError):
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(RequestValidationError, answer_validation)
    app.add_exception_handler(HTTPException, answer_http)
