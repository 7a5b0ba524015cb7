"""Turns the place where a page ended into a signed token and back; a token is bound to the filters of its list.

Signed, so that a client cannot make the database seek to values of its own, and so that a token of one list is
refused by another instead of silently giving wrong rows.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from api.errors import InvalidRequestError
from api.problems import FieldProblem

SIGNATURE_BYTES = 16


class PageSigner:
    """Signs and opens page tokens."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def seal(self, place: Mapping[str, Any], bound_to: Mapping[str, Any]) -> str:
        """Returns an opaque token. place: where the next page begins; bound_to: what the list was filtered by."""
        payload = _canonical(place)
        token = base64.urlsafe_b64encode(self._sign(payload, bound_to) + payload)
        return token.decode().rstrip("=")

    def open(self, token: str, bound_to: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the place that was sealed; raises InvalidRequestError on any other token or other filters."""
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise _refused() from error
        signature, payload = raw[:SIGNATURE_BYTES], raw[SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(payload, bound_to)):
            raise _refused()
        place: dict[str, Any] = json.loads(payload)
        return place

    def _sign(self, payload: bytes, bound_to: Mapping[str, Any]) -> bytes:
        message = hashlib.sha256(_canonical(bound_to)).digest() + payload
        return hmac.digest(self._secret, message, "sha256")[:SIGNATURE_BYTES]


def _canonical(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()


def _refused() -> InvalidRequestError:
    return InvalidRequestError(
        "invalid_page_token",
        "The page token is not one that this list gave out for these filters.",
        FieldProblem(parameter="page_token", detail="use next_page_token as it came, with the same filters"),
        status=400,
        hint="Start again without page_token.",
    )
