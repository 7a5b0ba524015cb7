"""A moment in a request: a text as RFC 3339 writes it, and nothing that only could be read as one."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AwareDatetime, BeforeValidator, Field

DATE_AND_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}")


def _written_out(value: object) -> object:
    """Seconds since 1970 and bare dates would be taken as well, and mean something else to everybody."""
    if not isinstance(value, str) or DATE_AND_TIME.match(value) is None:
        raise ValueError("must be a time as RFC 3339 writes it, such as 2026-11-24T09:00:00Z")
    return value


Moment = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_written_out)]
