"""Maps every error that can reach the edge to one (HTTP status, code); the only place where that is decided.

The worker has its own table of the same errors for a job's outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Route

from api.errors import TRY_AGAIN, ApiError
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
    QuotaExceededError,
    SecretKeyRequiredError,
    StorageUnavailableError,
    StoreError,
    WrongStateError,
)

QUOTA_RETRY_AFTER_S = 30
CODES_OF_STATUS = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}


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
    match error:
        case NotFoundError() if error.kind != "blob":
            status, hint = 404, "Check the id, and that this key may see it."
        case WrongStateError():
            status, hint = 409, "Read the job's state first."
        case SecretKeyRequiredError():
            status, hint = 409, "An operator sets the same BITMILL_SECRET_KEY for the API and every worker."
        case IdempotencyConflictError():
            reused = FieldProblem(header="Idempotency-Key", detail="used before with another request")
            return Refusal(status=422, code=error.code, detail=detail, hint="Use a new key.", errors=(reused,))
        case QuotaExceededError():
            return _quota_refusal(error)
        case StorageUnavailableError():
            detail, hint = f"{error.what} did not answer.", "Send the same request again a little later."
            return Refusal(status=503, code=error.code, detail=detail, hint=hint, retryable=True, headers=TRY_AGAIN)
        case _:
            code = "blob_missing" if isinstance(error, NotFoundError) else error.code
            detail, hint = "Stored data cannot be used.", "Report the request id."
            return Refusal(status=500, code=code, detail=detail, hint=hint)
    return Refusal(status=status, code=error.code, detail=detail, hint=hint)


def _quota_refusal(error: QuotaExceededError) -> Refusal:
    """Jobs end by themselves, so waiting helps; bytes stay until somebody removes them."""
    if error.quota == "jobs_in_flight":
        return Refusal(
            status=429,
            code=error.code,
            detail=str(error),
            hint="Wait until jobs have ended, or cancel some.",
            retryable=True,
            headers={"Retry-After": str(QUOTA_RETRY_AFTER_S)},
        )
    return Refusal(
        status=403,
        code=error.code,
        detail=str(error),
        hint="Delete finished jobs, calibration sets or uploaded models, or ask for more.",
    )


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


def _methods_at(request: Request, routes: Sequence[Route]) -> set[str]:
    """Returns every method that some route has at the request's path; the framework names those of one route only.

    Of templates that match, the longest is meant: `{job_id}` would take `x:cancel` for an id.
    """
    matching = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    longest = max((len(route.path) for route in matching), default=0)
    return {method for route in matching if len(route.path) == longest for method in route.methods or ()}


def _escape(part: str) -> str:
    """Escapes one reference token of a JSON pointer (RFC 6901)."""
    return part.replace("~", "~0").replace("/", "~1")


def install(app: FastAPI, routes: Sequence[Route]) -> None:
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
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(sorted(_methods_at(request, routes)))
        refusal = Refusal(status=error.status_code, code=code, detail=str(error.detail), headers=headers)
        return problem_response(refusal, request.scope)

    for kind in (ApiError, CoreError, StoreError):
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(RequestValidationError, answer_validation)
    app.add_exception_handler(HTTPException, answer_http)
