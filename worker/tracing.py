"""One attempt as spans: the attempt, its stages, and the blocks in them. The child sends nothing; its events tell."""

from __future__ import annotations

import time

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind

from core.events import BlockQuantized
from store.jobs import Job, Stage
from store.tracing import NANOSECONDS, Tracing, inside_job, mark_failed


class AttemptTrace:
    """Begins with the claim; `end` closes what is open. Used by the supervisor's thread alone."""

    def __init__(self, tracing: Tracing, job: Job) -> None:
        self._tracing = tracing
        self._attempt = tracing.tracer.start_span(
            "attempt",
            inside_job(job.id),
            kind=SpanKind.CONSUMER,
            attributes={
                "bitmill.job_id": job.id,
                "bitmill.attempt": job.attempt,
                "bitmill.worker_id": job.worker_id or "",
            },
        )
        self._stage: Span | None = None

    def enter(self, stage: Stage) -> None:
        """Closes the stage before and opens this one."""
        self._leave()
        self._stage = self._tracing.tracer.start_span(stage.value, trace.set_span_in_context(self._attempt))

    def block(self, event: BlockQuantized) -> None:
        """Adds a finished block."""
        now = time.time_ns()
        span = self._tracing.tracer.start_span(
            "block",
            trace.set_span_in_context(self._stage or self._attempt),
            start_time=now - int(event.seconds * NANOSECONDS),
            attributes={"bitmill.block": event.block, "bitmill.rss_bytes": event.rss_bytes},
        )
        span.end(now)

    def end(self, job: Job | None) -> None:
        """Closes the attempt, and with a finished job its trace. job: None where the lease was lost."""
        self._leave()
        if job is None:
            mark_failed(self._attempt, "lease_lost")
        else:
            self._attempt.set_attribute("bitmill.state", job.state)
            mark_failed(self._attempt, None if job.error is None else job.error.code)
        self._attempt.end()
        if job is not None and job.state.terminal:
            self._tracing.job_ended(job)

    def _leave(self) -> None:
        if self._stage is not None:
            self._stage.end()
            self._stage = None
