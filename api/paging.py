"""Cuts lists into pages: the place where a page ended goes out as a signed token, bound to the filters of its list.

Signed, so that a client cannot make the database seek to values of its own, and so that a token of one list is
refused by another instead of silently giving wrong rows.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from api.errors import InvalidRequestError
from api.problems import FieldProblem
from store.jobs import Cursor

SIGNATURE_BYTES = 16
Row = TypeVar("Row")
Place = TypeVar("Place")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[Row]):
    """The rows of one answer. next_token: for the rows behind them; None where there are none."""

    rows: Sequence[Row]
    next_token: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """One page of a list. bound_to: what the list is filtered by. size: rows at most. token: of the page before."""

    signer: PageSigner
    bound_to: Mapping[str, Any]
    size: int
    token: str | None

    @property
    def limit(self) -> int:
        """Returns how many rows to read: one more than are shown tells whether there is another page."""
        return self.size + 1

    def after(self, read: Callable[[dict[str, Any]], Place]) -> Place | None:
        """Returns the place behind which the page begins, None for the first one; raises InvalidRequestError."""
        return None if self.token is None else read(self.signer.open(self.token, self.bound_to))

    def cut(self, found: Sequence[Row], place: Callable[[Row], Mapping[str, Any]]) -> Page[Row]:
        """Returns the page of the rows that were read. place: of a row, as `after` reads it again."""
        rows = found[: self.size]
        more = len(found) > self.size
        return Page(rows=rows, next_token=self.signer.seal(place(rows[-1]), self.bound_to) if more else None)


class Aged(Protocol):
    """A row of a list of newest first."""

    @property
    def id(self) -> str:
        """Tells rows of one moment apart."""

    @property
    def created_at(self) -> datetime:
        """By which the list is sorted."""


def place_by_age(row: Aged) -> dict[str, str]:
    """Returns a row's place in a list of newest first."""
    return {"created_at": row.created_at.isoformat(), "id": row.id}


def cursor_of(place: Mapping[str, Any]) -> Cursor:
    """Reads what `place_by_age` wrote."""
    return Cursor(created_at=datetime.fromisoformat(place["created_at"]), id=place["id"])


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
