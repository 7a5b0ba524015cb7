"""Counts requests and reads the queue's length for Prometheus; one registry per application, none global."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import Scope

from store.jobs import JobState
from store.webhooks import DeliveryState
from store.workers import Worker

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SECONDS_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the database says at one moment. queued: claimable jobs by queue class."""

    queued: Mapping[str, int]
    states: Mapping[JobState, int]
    workers: Sequence[Worker]
    deliveries: Mapping[DeliveryState, int]


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
        self._queued = Gauge(
            "bitmill_jobs_queued", "Jobs that a worker could claim now.", ("queue_class",), registry=self._registry
        )
        self._jobs = Gauge("bitmill_jobs", "Jobs by state.", ("state",), registry=self._registry)
        self._workers = Gauge("bitmill_workers", "Workers that are heard of.", ("takes_jobs",), registry=self._registry)
        self._deliveries = Gauge(
            "bitmill_webhook_deliveries",
            "Webhook messages of the last 30 days by state.",
            ("state",),
            registry=self._registry,
        )

    def observe_request(self, scope: Scope, status: int | None, seconds: float) -> None:
        """Counts one request under its route's template: paths hold ids and would never end."""
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._requests.labels(method, route, str(status or 0)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def render(self, now: Standing) -> bytes:
        """Returns the exposition text with the service as it is now."""
        self._queued.clear()
        for queue_class, count in now.queued.items():
            self._queued.labels(queue_class).set(count)
        for state, count in now.states.items():
            self._jobs.labels(state).set(count)
        live = [worker for worker in now.workers if worker.live]
        for takes_jobs in (True, False):
            count = sum(worker.takes_jobs is takes_jobs for worker in live)
            self._workers.labels(str(takes_jobs).lower()).set(count)
        for delivery_state, count in now.deliveries.items():
            self._deliveries.labels(delivery_state).set(count)
        return generate_latest(self._registry)
