"""The cookie of a browser's session and the token that its writes must carry beside it.

The cookie is HttpOnly and SameSite=Lax; the CSRF token is made from the cookie's value, so that only who was told it
by this service can name it, and nothing more is stored.
"""

from __future__ import annotations

import hashlib
import hmac

from fastapi import Request, Response

COOKIE = "bitmill_session"
CSRF_HEADER = "X-CSRF-Token"
LIFETIME_SECONDS = 12 * 3600


def csrf_token(session_token: str) -> str:
    """Returns what writes of a session must carry; it tells nothing of the session's own token."""
    return hashlib.sha256(f"csrf {session_token}".encode()).hexdigest()


def csrf_matches(session_token: str, given: str | None) -> bool:
    """Returns whether a request carries the session's token."""
    return given is not None and hmac.compare_digest(csrf_token(session_token).encode(), given.encode())


def set_cookie(request: Request, response: Response, session_token: str) -> None:
    """Hands the session to the browser, for the paths of this service alone."""
    response.set_cookie(
        COOKIE,
        session_token,
        max_age=LIFETIME_SECONDS,
        path=cookie_path(request),
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )


def clear_cookie(request: Request, response: Response) -> None:
    """Takes the session from the browser."""
    response.delete_cookie(COOKIE, path=cookie_path(request), httponly=True, samesite="lax")


def cookie_path(request: Request) -> str:
    """Returns the prefix under which a proxy serves this service, or the root."""
    return str(request.scope.get("root_path", "")).rstrip("/") or "/"
