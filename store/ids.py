"""Makes the identifiers of rows: a prefix that names the kind, and a UUIDv7 (RFC 9562 section 5.7), sorted by time.

Python gains `uuid.uuid7` only in 3.14. What one process makes is in order; otherwise nothing may rely on it, for clocks
of several machines write it.
"""

from __future__ import annotations

import secrets
import time
import uuid
from enum import StrEnum

_RANDOM_BITS = 62
_NANOSECONDS = 1_000_000  # in a millisecond


class IdPrefix(StrEnum):
    """What an identifier names."""

    JOB = "job"
    CALIBRATION_SET = "cal"
    ARTIFACT = "art"
    API_KEY = "key"
    WORKER = "wrk"
    BATCH = "bat"
    WEBHOOK = "whk"
    DELIVERY = "msg"
    PUBLICATION = "pub"
    UPLOADED_MODEL = "mdl"


def uuid7() -> uuid.UUID:
    """Returns 48 bits of Unix milliseconds, 12 of their fraction (RFC 9562 section 6.2, method 3), and 62 random bits.

    A step of the fraction is a quarter of a microsecond, less than it takes to make one.
    """
    milliseconds, rest = divmod(time.time_ns(), _NANOSECONDS)
    fraction = (rest << 12) // _NANOSECONDS
    return uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | secrets.randbits(_RANDOM_BITS))


def new_id(prefix: IdPrefix) -> str:
    """Returns for example `job_0199b2c4d5e67f0190a1b2c3d4e5f607`, safe in URLs and file names."""
    return f"{prefix}_{uuid7().hex}"
