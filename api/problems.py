"""Turns a refusal into an RFC 9457 `application/problem+json` answer, and documents that form for OpenAPI.

It does not decide which status an error gets; `api.errors` does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response
from starlette.types import Scope

from api.codes import PROBLEM_CODES

MEDIA_TYPE = "application/problem+json"
LIMITED = {HTTPStatus.TOO_MANY_REQUESTS.value}


class FieldProblem(BaseModel):
    """One part of the request that was refused: a body field, a query or path parameter, or a header."""

    model_config = ConfigDict(extra="forbid")

    pointer: str | None = Field(default=None, description="JSON pointer to the body field, as a URI fragment.")
    parameter: str | None = Field(default=None, description="Name of the query or path parameter.")
    header: str | None = Field(default=None, description="Name of the request header.")
    detail: str = Field(description="What is wrong with it, and what is allowed.")


class Problem(BaseModel):
    """RFC 9457 problem details. `code` is stable and meant for programs; `detail` and `hint` are meant for people."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:bitmill:problem:invalid_config",
                    "title": "Invalid config",
                    "status": 422,
                    "detail": "bits=5: not a supported width. Allowed: 2, 3, 4 or 8.",
                    "instance": "/v1/jobs",
                    "code": "invalid_config",
                    "request_id": "req_0190b2c4e4a97c0f8c4f6c2d7a1e9b3d",
                    "retryable": False,
                    "hint": "Set bits to 2, 3, 4 or 8.",
                    "errors": [{"pointer": "#/bits", "detail": "not a supported width; allowed: 2, 3, 4 or 8"}],
                }
            ]
        },
    )

    type: str = Field(description="A URI that names the kind of problem.")
    title: str
    status: int
    detail: str
    instance: str = Field(description="The path that was asked for.")
    code: str = Field(json_schema_extra={"enum": [*PROBLEM_CODES]}, description="Stable; others may be added.")
    request_id: str = Field(description="Also in the X-Request-Id header and in the service's log.")
    retryable: bool = Field(description="Whether the very same request may succeed later.")
    hint: str = Field(description="What to do next; may be empty.")
    errors: list[FieldProblem] = Field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What is said about one refused request, before it is put on the wire."""

    status: int
    code: str
    detail: str
    hint: str = ""
    retryable: bool = False
    errors: tuple[FieldProblem, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


def problem_response(refusal: Refusal, scope: Scope) -> Response:
    """Returns the answer for one refusal, with the request's path and id in it."""
    problem = Problem(
        type=f"urn:bitmill:problem:{refusal.code}",
        title=refusal.code.replace("_", " ").capitalize(),
        status=refusal.status,
        detail=refusal.detail,
        instance=scope["path"],
        code=refusal.code,
        request_id=scope.get("state", {}).get("request_id", ""),
        retryable=refusal.retryable,
        hint=refusal.hint,
        errors=list(refusal.errors),
    )
    content = problem.model_dump(mode="json", exclude={"errors"})
    content["errors"] = [error.model_dump(exclude_none=True) for error in problem.errors]
    # ASCII escapes: a refused field name may hold half a surrogate pair, which UTF-8 cannot carry.
    return Response(json.dumps(content), refusal.status, dict(refusal.headers), MEDIA_TYPE)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the OpenAPI entries of the error answers that a route can give.

    Whoever proves a key may also be told that it asks too often, so 401 brings 429 with it.
    """
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in sorted({*statuses, *LIMITED} if HTTPStatus.UNAUTHORIZED in statuses else statuses)
    }
