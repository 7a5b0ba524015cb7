"""Sessions: a browser signs in with a key once, and its pages need not hold the key any longer."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from api.deps import Caller, Principal, ServicesDep, principal_of_key
from api.errors import UnauthenticatedError
from api.problems import responses
from api.schemas.keys import SessionView, SignIn
from api.sessions import COOKIE, LIFETIME_SECONDS, clear_cookie, csrf_token, set_cookie

router = APIRouter(prefix="/v1/session", tags=["sessions"])

SET_COOKIE: dict[str, Any] = {"Set-Cookie": {"schema": {"type": "string"}, "description": f"`{COOKIE}`, HttpOnly"}}


@router.post(
    "",
    status_code=201,
    operation_id="signIn",
    summary="Sign in",
    responses={
        201: {"description": "Signed in for twelve hours", "headers": SET_COOKIE},
        **responses(400, 401, 403, 413, 415, 422, 503),
    },
)
def sign_in(body: SignIn, request: Request, response: Response, services: ServicesDep) -> SessionView:
    """Opens a session for a key. Reads then need the cookie alone; writes carry `csrf_token` in `X-CSRF-Token` too."""
    with services.database.transaction() as repository:
        key = repository.find_api_key(body.key)
        if key is None:
            raise UnauthenticatedError("The key is unknown, expired or revoked.")
        token, expires_at = repository.open_session(key.id, LIFETIME_SECONDS)
    set_cookie(request, response, token)
    return _view(principal_of_key(key, by="cookie", expires_at=expires_at, csrf_token=csrf_token(token)))


@router.get("", operation_id="getSession", summary="Who am I?", responses=responses(401, 403, 503))
def get_session(principal: Caller) -> SessionView:
    """Returns who is calling and what it may do; a page that was loaded anew finds its CSRF token here."""
    return _view(principal)


@router.delete("", status_code=204, operation_id="signOut", summary="Sign out", responses=responses(401, 403, 503))
def sign_out(request: Request, response: Response, services: ServicesDep, principal: Caller) -> None:  # noqa: ARG001 - must be signed in
    """Ends the session of the cookie; other sessions of its key go on."""
    token = request.cookies.get(COOKIE)
    if token is not None:
        with services.database.transaction() as repository:
            repository.close_session(token)
    clear_cookie(request, response)


def _view(principal: Principal) -> SessionView:
    return SessionView(
        by=principal.by,
        key_id=None if principal.by == "loopback" else principal.owner_id,
        name=principal.name,
        scopes=sorted(principal.scopes),
        csrf_token=principal.csrf_token,
        expires_at=principal.expires_at,
    )
