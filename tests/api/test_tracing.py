"""A request's span, and the job's trace that begins in it."""

from __future__ import annotations

import sys

import pytest

from api.settings import ApiSettings
from store.tracing import Tracing, TracingUnavailableError
from tests.api.service import serve
from tests.collector import collector

CALLER = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_a_submit_is_linked_with_the_jobs_trace(settings: ApiSettings):
    """The request goes on in its caller's trace; the job has one of its own, and each leads to the other."""
    with collector() as kept:
        with serve(settings.model_copy(update={"otlp_endpoint": kept.endpoint})) as service:
            service.client.headers["traceparent"] = f"00-{CALLER}-00f067aa0ba902b7-01"
            job_id = service.submit()["id"]
            service.client.get("/livez")
            service.client.get(f"/v1/jobs/{job_id}")
        spans = {span.name: span for span in kept.spans}
    request, submit = spans["POST /v1/jobs"], spans["submit"]
    trace_id = job_id.partition("_")[2]
    assert (request.trace_id, request.parent_id) == (CALLER, "00f067aa0ba902b7")
    assert request.attributes["bitmill.job_id"] == job_id
    assert request.attributes["http.response.status_code"] == 202
    assert (request.links, submit.trace_id, submit.links) == ((trace_id,), trace_id, (CALLER,))
    assert "GET /v1/jobs/{job_id}" in spans
    assert not [name for name in spans if "livez" in name]


def test_an_endpoint_without_the_sdk_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch):
    """It does not go unnoticed that nothing is sent."""
    monkeypatch.setitem(sys.modules, "store.trace_export", None)
    with pytest.raises(TracingUnavailableError, match=r"bitmill\[tracing\]"):
        Tracing("http://localhost:4318", "bitmill-api")
    assert Tracing(None, "bitmill-api").tracer is not None
