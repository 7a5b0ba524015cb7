"""Limits how often a key may ask, by a token bucket per key in this process.

Every API process counts for itself: with several behind one address, a key gets its rate from each. A shared count
would put one more round trip into every request, and a service whose Redis is away would have to guess.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

SECONDS = 60.0


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class RateLimiter:
    """A bucket holds one minute's worth and fills evenly. Safe to share between threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds that never go back."""
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.Lock()

    def take(self, key_id: str, per_minute: int) -> float:
        """Takes one request and returns 0, or how many seconds it is until there is one to take."""
        now, rate = self._clock(), per_minute / SECONDS
        with self._lock:
            bucket = self._buckets.setdefault(key_id, _Bucket(float(per_minute), now))
            bucket.tokens = min(bucket.tokens + (now - bucket.filled_at) * rate, float(per_minute))
            bucket.filled_at = now
            if bucket.tokens >= 1:
                bucket.tokens -= 1
                return 0.0
            return (1 - bucket.tokens) / rate
