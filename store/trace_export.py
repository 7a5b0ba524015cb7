"""Sends spans to an OTLP/HTTP collector from a thread of its own; a collector that is away costs spans, never a job."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import SpanContext, Tracer

SEND_SECONDS = 5
"""How long one request to the collector may take."""


class Exporter:
    """Makes spans and sends them in batches."""

    def __init__(self, endpoint: str, service: str) -> None:
        self._ids = _Ids()
        resource = Resource.create({SERVICE_NAME: service, SERVICE_VERSION: version("bitmill")})
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=SEND_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self.tracer: Tracer = self._provider.get_tracer("bitmill", version("bitmill"))

    @contextmanager
    def next_ids(self, context: SpanContext) -> Iterator[None]:
        """Gives a root span that this thread starts inside the ids of `context`."""
        with self._ids.fixed(context):
            yield

    def close(self) -> None:
        """Sends what waits."""
        self._provider.shutdown()


class _Ids(RandomIdGenerator):
    """Random ids, but for the spans whose ids are known beforehand."""

    def __init__(self) -> None:
        self._known = threading.local()

    @contextmanager
    def fixed(self, context: SpanContext) -> Iterator[None]:
        self._known.context = context
        try:
            yield
        finally:
            del self._known.context

    def generate_trace_id(self) -> int:
        known: SpanContext | None = getattr(self._known, "context", None)
        return super().generate_trace_id() if known is None else known.trace_id

    def generate_span_id(self) -> int:
        known: SpanContext | None = getattr(self._known, "context", None)
        return super().generate_span_id() if known is None else known.span_id
