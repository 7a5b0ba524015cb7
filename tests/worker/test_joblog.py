"""The log that users read: numbered, bounded, without this machine's paths and without secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.worker.bench import Bench
from worker.joblog import LINES_WAITING, MAX_CHARS, JobLog


def test_lines_are_numbered_and_forgotten_once_written():
    """What came after a batch stays; where too many wait, the oldest go and the numbers show it."""
    log = JobLog({})
    log.add("child", "one")
    log.add("worker", "two", "error", code="x")
    batch = log.waiting()
    assert [(line.number, line.text, line.level, line.fields) for line in batch] == [
        (1, "one", "info", {}),
        (2, "two", "error", {"code": "x"}),
    ]
    for number in range(LINES_WAITING):
        log.add("child", str(number))
    log.forget(batch)
    assert [line.number for line in log.waiting()][:1] == [3]
    log.forget(log.waiting())
    log.forget(())
    assert log.waiting() == ()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("open /srv/data/work/job_1/blocks failed", "open <work>/job_1/blocks failed"),
        ("in /srv/data/x and /srv/models/a", "in <data>/x and <models>/a"),
        ("token hf_abcdefghijkl0123 sent", "token <redacted> sent"),
        ("key bm_0199b2c4_00ff11", "key <redacted>"),
        ("GET http://user:pass@host/x", "GET http://<redacted>@host/x"),
        ("\x1b[31mred\x1b[0m\x00\r", "red"),
        ("plain größe", "plain größe"),
    ],
)
def test_what_is_nobodys_business_is_left_out(text: str, shown: str):
    log = JobLog({Path("/srv/data"): "data", Path("/srv/data/work"): "work", Path("/srv/models"): "models"})
    log.add("child", text, reason=text)
    (line,) = log.waiting()
    assert (line.text, line.fields["reason"]) == (shown, shown)


def test_a_long_line_is_cut():
    log = JobLog({})
    log.add("child", "x" * (MAX_CHARS + 1))
    assert log.waiting()[0].text == "x" * MAX_CHARS + "… (4,001 characters)"


def test_a_jobs_log_tells_what_its_child_printed(bench: Bench):
    """And what the supervisor did: the last words of a child that dies are on record."""
    job_id = bench.submit(max_attempts=1, fault="exit", block=1).id
    bench.work()
    with bench.services.database.reading() as repository:
        lines = repository.list_log_lines(job_id, 100)
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    texts = [(line.source, line.text) for line in lines]
    assert texts[:3] == [("worker", "attempt_started"), ("worker", "child_started"), ("child", "stage_started")]
    assert ("child", "something went wrong in a library") in texts
    assert lines[-1].text == "attempt_failed"
    assert lines[-1].fields["code"]
    assert str(bench.services.settings.data_dir) not in "".join(line.text for line in lines)


def test_a_jobs_log_follows_its_run(bench: Bench):
    """Stages and blocks with their figures, warnings as what they say; what is a row elsewhere is no line here."""
    job_id = bench.submit().id
    bench.work()
    with bench.services.database.reading() as repository:
        lines = repository.list_log_lines(job_id, 1000)
        events = repository.list_events(job_id)
    stages = [line.fields["stage"] for line in lines if line.text == "stage_started"]
    assert stages[0] == "preflight"
    assert "quantizing" in stages
    blocks = [line.fields for line in lines if line.text == "block_quantized"]
    recorded = [event.payload for event in events if event.kind == "block_quantized"]
    assert [block["block"] for block in blocks] == [payload["block"] for payload in recorded]
    assert [block["sha256"] for block in blocks] == [payload["sha256"] for payload in recorded]
    assert not any(line.text == "linear_quantized" for line in lines)
