"""Makes the identifiers of rows: a prefix that names the kind, and a UUIDv7 (RFC 9562 section 5.7), sorted by time.

Python gains `uuid.uuid7` only in 3.14. Nothing may rely on the order: clocks of several machines write it.
"""

from __future__ import annotations

import secrets
import time
import uuid
from enum import StrEnum

_RANDOM_BITS = 74
_RANDOM_LOW_BITS = 62


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


def uuid7() -> uuid.UUID:
    """Returns 48 bits of Unix milliseconds, the version and variant bits, and 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    random_high, random_low = divmod(secrets.randbits(_RANDOM_BITS), 1 << _RANDOM_LOW_BITS)
    return uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | random_high << 64 | 0b10 << 62 | random_low)


def new_id(prefix: IdPrefix) -> str:
    """Returns for example `job_0199b2c4d5e67f0190a1b2c3d4e5f607`, safe in URLs and file names."""
    return f"{prefix}_{uuid7().hex}"
