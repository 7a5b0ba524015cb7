"""Gives every job one trace, whose id is the job's own, and sends spans to an OTLP collector where one is configured.

The parts of a job run in several processes on several machines and are linked by the job's id alone: nothing of the
trace is stored or sent along. Without an endpoint spans are not recorded and cost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags, Tracer

from store.jobs import Job

if TYPE_CHECKING:
    from store.trace_export import Exporter

SPAN_ID_MASK = (1 << 64) - 1
NANOSECONDS = 1_000_000_000


class TracingUnavailableError(Exception):
    """An endpoint is configured, and what sends spans is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "BITMILL_OTLP_ENDPOINT is set, but OpenTelemetry's SDK is not installed: "
            "pip install 'bitmill[tracing]', or remove the variable."
        )


def job_span_context(job_id: str) -> SpanContext:
    """Returns the place of a job's root span: the job's UUID is the trace id, its lower half the span id."""
    number = int(job_id.partition("_")[2], 16)
    return SpanContext(
        trace_id=number, span_id=number & SPAN_ID_MASK, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )


def inside_job(job_id: str) -> Context:
    """Returns the context whose spans are children of a job's root span."""
    return trace.set_span_in_context(NonRecordingSpan(job_span_context(job_id)), Context())


class Tracing:
    """One per process. `tracer` starts spans; those that belong to a job are started in `inside_job`."""

    def __init__(self, endpoint: str | None = None, service: str = "bitmill") -> None:
        """endpoint: of an OTLP/HTTP collector, such as http://localhost:4318; service: what this process is called.

        Raises TracingUnavailableError where an endpoint is given and the SDK is not installed.
        """
        self._exporter = None if endpoint is None else _exporter(endpoint, service)
        self.tracer: Tracer = trace.NoOpTracer() if self._exporter is None else self._exporter.tracer

    def submitted(self, job_id: str) -> None:
        """Notes that the request under way made a job: a span in the job's trace, each linked to the other."""
        request = trace.get_current_span()
        request.set_attribute("bitmill.job_id", job_id)
        request.add_link(job_span_context(job_id))
        links = [Link(request.get_span_context())]
        self.tracer.start_span("submit", inside_job(job_id), kind=SpanKind.PRODUCER, links=links).end()

    def job_ended(self, job: Job) -> None:
        """Sends the job's root span: from its submit to its end."""
        if self._exporter is None:
            return
        with self._exporter.next_ids(job_span_context(job.id)):
            span = self.tracer.start_span("job", Context(), start_time=_nanoseconds(job.created_at.timestamp()))
        span.set_attributes({"bitmill.job_id": job.id, "bitmill.state": job.state, "bitmill.attempts": job.attempt})
        mark_failed(span, None if job.error is None else job.error.code)
        # Now, not the row's time: the attempt inside ended by this clock, and no span may outlast the one around it.
        span.end()

    def close(self) -> None:
        """Sends what waits, for some seconds at most."""
        if self._exporter is not None:
            self._exporter.close()


def _exporter(endpoint: str, service: str) -> Exporter:
    try:
        from store.trace_export import Exporter  # noqa: PLC0415 - the SDK is an extra
    except ImportError as error:
        raise TracingUnavailableError from error
    return Exporter(endpoint, service)


def mark_failed(span: Span, code: str | None) -> None:
    """Marks a span as failed where there is an error code."""
    if code is not None:
        span.set_attribute("error.type", code)
        span.set_status(trace.Status(trace.StatusCode.ERROR, code))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * NANOSECONDS)
