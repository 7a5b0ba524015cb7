"""Counts what an operator watches: a few statements over indexes, cheap enough to be asked every few seconds."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from store.jobs import JobState
from store.measurements import FAILURE_SECONDS, Measurements
from store.repository.clock import database_time
from store.repository.jobs import JobPart
from store.repository.queue import QueuePart, claimable
from store.repository.webhooks import WebhookPart
from store.tables import artifacts, calibration_sets, jobs, uploaded_models

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Table


class MeasurementPart(JobPart, QueuePart, WebhookPart):
    """The part of the repository that /metrics reads."""

    def measure(self) -> Measurements:
        """Returns one look at all jobs and workers."""
        overdue = select(func.count()).select_from(jobs).where(jobs.c.lease_expires_at < database_time())
        return Measurements(
            states=self.state_counts(),
            queued=self.queued_counts(),
            waiting_seconds=self._waiting_seconds(),
            overdue_leases=self._count(overdue),
            failures=self._failures(),
            workers=self.list_workers(),
            deliveries=self.delivery_counts(),
            artifact_bytes=self._bytes_of(artifacts),
            calibration_bytes=self._bytes_of(calibration_sets),
            model_bytes=self._bytes_of(uploaded_models),
        )

    def _bytes_of(self, table: Table) -> int:
        return self._count(select(func.coalesce(func.sum(table.c.size_bytes), 0)))

    def _waiting_seconds(self) -> Mapping[str, float]:
        statement = (
            select(jobs.c.queue_class, func.min(jobs.c.available_at), database_time())
            .where(claimable())
            .group_by(jobs.c.queue_class)
        )
        rows = self._connection.execute(statement)
        return {queue_class: max((now - oldest).total_seconds(), 0.0) for queue_class, oldest, now in rows}

    def _failures(self) -> Mapping[str, int]:
        since = database_time(-FAILURE_SECONDS)
        statement = select(jobs.c.error).where(jobs.c.state == JobState.FAILED, jobs.c.finished_at >= since)
        return Counter(str(error["code"]) for (error,) in self._connection.execute(statement))
