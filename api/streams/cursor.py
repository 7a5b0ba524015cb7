"""Writes a place among all jobs' events as the opaque id of a server-sent event, and reads it back.

It is not signed: whatever place a client makes up, it sees its own jobs' events from there and nothing else.
"""

from __future__ import annotations

import base64
import binascii
import re

from api.errors import InvalidRequestError
from api.problems import FieldProblem
from store.jobs import StreamPlace

FORM = re.compile(r"(\d{1,18})\.([a-z0-9_]{0,64})\.(\d{1,18})")
MAX_CHARS = 200


def write_cursor(place: StreamPlace) -> str:
    """Returns the place as text without spaces or line ends."""
    plain = f"{place.position}.{place.job_id}.{place.seq}"
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def read_cursor(text: str) -> StreamPlace:
    """Returns the place; raises InvalidRequestError on what `write_cursor` cannot have written."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError) as error:
        raise _refused("is not an id that a stream gave out") from error
    match = FORM.fullmatch(raw)
    if match is None:
        raise _refused("is not an id that a stream gave out")
    return StreamPlace(position=int(match[1]), job_id=match[2], seq=int(match[3]))


def read_seq(text: str) -> int:
    """Returns the number of a job's event; raises InvalidRequestError on anything else."""
    if not re.fullmatch(r"\d{1,18}", text):
        raise _refused("is not the seq of an event")
    return int(text)


def _refused(reason: str) -> InvalidRequestError:
    return InvalidRequestError(
        "invalid_last_event_id",
        f"Last-Event-ID {reason}.",
        FieldProblem(header="Last-Event-ID", detail=reason),
        status=400,
        hint="Send the id of the last event as it came, or leave the header out to start from now.",
    )
