"""Counts this process's requests for Prometheus, beside what the database says; one registry per application."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from starlette.types import Scope

from api.gauges import Gauges
from store.measurements import Measurements

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SECONDS_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


class Metrics:
    """What /metrics shows."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "bitmill_http_requests",
            "Finished HTTP requests; status 0: the connection broke before an answer.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "bitmill_http_request_seconds",
            "Time from the request's head to the last byte of the answer.",
            ("method", "route"),
            buckets=SECONDS_BUCKETS,
            registry=self._registry,
        )
        self._gauges = Gauges(self._registry)

    def observe_request(self, scope: Scope, status: int | None, seconds: float) -> None:
        """Counts one request under its route's template: paths hold ids and would never end."""
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._requests.labels(method, route, str(status or 0)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def render(self, now: Measurements) -> bytes:
        """Returns the exposition text with the installation as it is now."""
        self._gauges.show(now)
        return generate_latest(self._registry)
