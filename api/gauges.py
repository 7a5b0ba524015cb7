"""Shows what the database says of jobs and workers as Prometheus gauges: the same in every API process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Gauge

from store.measurements import Measurements
from store.workers import Worker


class Gauges:
    """One set per registry; `show` replaces all values."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, words: str, *labels: str) -> Gauge:
            return Gauge(f"bitmill_{name}", words, labels, registry=registry)

        self._jobs = gauge("jobs", "Jobs by state.", "state")
        self._queued = gauge("jobs_queued", "Jobs that a worker could claim now.", "queue_class")
        self._waiting = gauge(
            "jobs_waiting_seconds", "How long the oldest claimable job of a class has waited.", "queue_class"
        )
        self._overdue = gauge("leases_overdue", "Jobs shown as running whose worker fell silent.")
        self._failures = gauge("job_failures", "Jobs that failed within the last hour, by error code.", "code")
        self._workers = gauge("workers", "Workers that are heard of.", "takes_jobs")
        self._free = gauge("free_slots", "Free places of the workers that take jobs.", "queue_class")
        self._deliveries = gauge("webhook_deliveries", "Webhook messages of the last 30 days by state.", "state")
        self._bytes = gauge("artifact_bytes", "Size of all published files, each job's counted.")
        self._text_bytes = gauge("calibration_bytes", "Size of all stored calibration texts.")
        self._model_bytes = gauge("model_bytes", "Size of all uploaded models.")

    def show(self, now: Measurements) -> None:
        """Takes over one look at the database."""
        _replace(self._jobs, now.states.items())
        _replace(self._queued, now.queued.items())
        _replace(self._waiting, now.waiting_seconds.items())
        _replace(self._failures, now.failures.items())
        _replace(self._deliveries, now.deliveries.items())
        live = [worker for worker in now.workers if worker.live]
        taking = [worker for worker in live if worker.takes_jobs]
        _replace(self._workers, {"true": len(taking), "false": len(live) - len(taking)}.items())
        _replace(self._free, _free_slots(taking).items())
        self._overdue.set(now.overdue_leases)
        self._bytes.set(now.artifact_bytes)
        self._text_bytes.set(now.calibration_bytes)
        self._model_bytes.set(now.model_bytes)


def _free_slots(workers: list[Worker]) -> Mapping[str, int]:
    """Returns free places by queue class; a worker of two classes offers each of them its places."""
    free: Counter[str] = Counter()
    for worker in workers:
        for queue_class in worker.facts.queue_classes:
            free[queue_class] += max(worker.facts.slots - worker.busy, 0)
    return free


def _replace(gauge: Gauge, values: Iterable[tuple[str, float]]) -> None:
    gauge.clear()
    for label, value in values:
        gauge.labels(label).set(value)
