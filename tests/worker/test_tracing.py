"""A job's trace as a collector receives it from a worker."""

from __future__ import annotations

from dataclasses import replace

from store.jobs import JobState
from store.tracing import Tracing
from tests.collector import Collector, ReceivedSpan, collector
from tests.servers import free_port
from tests.worker.bench import Bench


def traced(bench: Bench, endpoint: str) -> tuple[Bench, Tracing]:
    """Returns the bench with a worker that sends its spans to an endpoint."""
    tracing = Tracing(endpoint, "bitmill-worker")
    return replace(bench, services=replace(bench.services, tracing=tracing)), tracing


def spans_of(kept: Collector, job_id: str) -> dict[str, list[ReceivedSpan]]:
    """Returns the spans of a job's trace by name."""
    found: dict[str, list[ReceivedSpan]] = {}
    for span in kept.of(job_id.partition("_")[2]):
        found.setdefault(span.name, []).append(span)
    return found


def test_a_job_is_one_trace_under_its_own_id(bench: Bench):
    """Its root lasts from submit to end; the attempt lies in it, the stages in that, the blocks in their stage."""
    with collector() as kept:
        worker, tracing = traced(bench, kept.endpoint)
        job_id = worker.submit().id
        worker.work()
        tracing.close()
    spans = spans_of(kept, job_id)
    (root,), (attempt,), (quantizing,) = spans["job"], spans["attempt"], spans["quantizing"]
    assert root.parent_id == ""
    assert root.attributes["bitmill.state"] == JobState.SUCCEEDED
    assert (attempt.parent_id, quantizing.parent_id) == (root.span_id, attempt.span_id)
    assert {"preflight", "quantizing", "uploading", "publishing"} <= set(spans)
    assert sorted(span.attributes["bitmill.block"] for span in spans["block"]) == list(range(8))
    assert {span.parent_id for span in spans["block"]} == {quantizing.span_id}
    assert root.seconds >= attempt.seconds >= quantizing.seconds > 0
    assert {span.service for span in kept.spans} == {"bitmill-worker"}


def test_a_failed_attempt_says_why_and_the_next_joins_the_trace(bench: Bench):
    """Two attempts are two spans of one trace, the first with its error's code; one root closes both."""
    with collector() as kept:
        worker, tracing = traced(bench, kept.endpoint)
        job_id = worker.submit(fault="numerical", block=2, max_attempts=1).id
        worker.work()
        failed = bench.job(job_id).error
        with bench.services.database.transaction() as repository:
            repository.retry(job_id)
        worker.work()
        tracing.close()
    spans = spans_of(kept, job_id)
    first, second = sorted(spans["attempt"], key=lambda span: int(span.attributes["bitmill.attempt"]))
    assert failed is not None
    assert (first.failed, first.attributes["error.type"]) == (True, failed.code)
    assert (second.failed, second.attributes["bitmill.state"]) == (False, JobState.SUCCEEDED)
    assert [root.attributes["bitmill.state"] for root in spans["job"]] == [JobState.FAILED, JobState.SUCCEEDED]


def test_a_collector_that_is_away_costs_no_job(bench: Bench):
    """The job ends as if nobody listened."""
    worker, tracing = traced(bench, f"http://127.0.0.1:{free_port()}")
    job_id = worker.submit().id
    worker.work()
    assert bench.job(job_id).state is JobState.SUCCEEDED
    tracing.close()
