"""Keeps what happened in a running job until the database has it: history, linears' rows, resolved facts, log lines.

Order is kept; a batch is forgotten only after the transaction that wrote it has committed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from core.events import LinearQuantized
from store.jobs import Job, LinearRow, LogLine
from store.repository import Repository
from worker.joblog import JobLog

LINEAR_FIELDS = frozenset(field.name for field in fields(LinearRow))


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What was waiting at one moment."""

    events: tuple[tuple[str, Mapping[str, Any]], ...]
    linears: tuple[LinearRow, ...]
    recalled: tuple[LinearRow, ...]
    resolved: Mapping[str, Any]
    lines: tuple[LogLine, ...]

    def write(self, repository: Repository, job: Job) -> None:
        """Writes the batch under the job's lease; raises LeaseLostError where that is gone."""
        if self.resolved:
            repository.set_resolved(job.id, job.lease_token, self.resolved)
        for kind, payload in self.events:
            repository.add_event(job.id, job.lease_token, kind, payload)
        if self.recalled:
            repository.record_linears(job.id, job.lease_token, self.recalled, replace=False)
        if self.linears:
            repository.record_linears(job.id, job.lease_token, self.linears)
        if self.lines:
            repository.add_log_lines(job.id, job.lease_token, self.lines)


class Journal:
    """Written to by the supervisor, emptied by the thread that holds the lease."""

    def __init__(self, resolved: Mapping[str, Any], log: JobLog) -> None:
        """resolved: what earlier attempts found out; it is kept where this attempt says nothing else."""
        self.log = log
        self._lock = threading.Lock()
        self._events: list[tuple[str, Mapping[str, Any]]] = []
        self._linears: list[LinearRow] = []
        self._recalled: list[LinearRow] = []
        self._resolved = dict(resolved)
        self._resolved_changed = False

    def record(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Adds a line to the job's history."""
        with self._lock:
            self._events.append((kind, payload))

    def record_linear(self, event: LinearQuantized) -> None:
        """Adds a linear's row."""
        values = {name: value for name, value in asdict(event).items() if name in LINEAR_FIELDS}
        with self._lock:
            self._linears.append(LinearRow(**values))

    def recall_linears(self, rows: Iterable[LinearRow]) -> None:
        """Adds the rows of linears that an earlier attempt solved: it may have died before it could write them."""
        with self._lock:
            self._recalled += rows

    def resolve(self, facts: Mapping[str, Any]) -> None:
        """Adds to what the worker found out about the job: model hash, fingerprint, engine."""
        with self._lock:
            self._resolved.update(facts)
            self._resolved_changed = True

    @property
    def resolved(self) -> Mapping[str, Any]:
        """Returns everything that is known about the job's inputs so far."""
        with self._lock:
            return dict(self._resolved)

    def waiting(self) -> Batch:
        """Returns what is not written yet."""
        with self._lock:
            return Batch(
                events=tuple(self._events),
                linears=tuple(self._linears),
                recalled=tuple(self._recalled),
                resolved=dict(self._resolved) if self._resolved_changed else {},
                lines=self.log.waiting(),
            )

    def forget(self, batch: Batch) -> None:
        """Drops a batch that is in the database now; what was added since stays."""
        self.log.forget(batch.lines)
        with self._lock:
            del self._events[: len(batch.events)]
            del self._linears[: len(batch.linears)]
            del self._recalled[: len(batch.recalled)]
            if batch.resolved == self._resolved:
                self._resolved_changed = False
