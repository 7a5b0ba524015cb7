"""Events, log and linears: complete, in order, read on from where the last page ended."""

from __future__ import annotations

from datetime import UTC, datetime

from store.jobs import LinearRow, LogLine
from tests.api.service import Service


def rows(blocks: int) -> list[LinearRow]:
    return [
        LinearRow(
            block=block,
            linear=f"model.layers.{block}.{name}",
            bits=4,
            group_size=32,
            loss=0.5,
            relative_loss=0.001,
            tokens=100,
            damp_percent=0.05,
            seconds=0.1,
            warnings=("starved",) if block else (),
        )
        for block in range(blocks)
        for name in ("a", "b", "c")
    ]


def test_events_tell_the_whole_story(service_on_each: Service):
    """Gap-free numbers from 1; `after` reads on; an empty page keeps its place."""
    job_id = service_on_each.submit()["id"]
    service_on_each.succeed(service_on_each.claim(), {"config.json": b"{}"})
    path = f"/v1/jobs/{job_id}/events"
    first = service_on_each.client.get(path, params={"page_size": 2}).json()
    assert [(event["seq"], event["kind"]) for event in first["data"]] == [(1, "submitted"), (2, "claimed")]
    rest = service_on_each.client.get(path, params={"after": first["next_after"]}).json()
    assert [(event["seq"], event["kind"], event["attempt"]) for event in rest["data"]] == [(3, "succeeded", 1)]
    end = service_on_each.client.get(path, params={"after": rest["next_after"]}).json()
    assert (end["data"], end["next_after"]) == ([], 3)


def test_linears_are_paged_in_the_models_order(service_on_each: Service):
    """Each once, with what was measured; a token of one job's list is refused by another's."""
    job_id = service_on_each.submit()["id"]
    written = rows(12)
    service_on_each.record(service_on_each.claim(), written)
    path = f"/v1/jobs/{job_id}/linears"
    seen, token = [], None
    while True:
        query = {"page_size": 7} | ({"page_token": token} if token else {})
        page = service_on_each.client.get(path, params=query).json()
        seen += page["data"]
        if page["next_page_token"] is None:
            break
        token = page["next_page_token"]
    assert [(row["block"], row["linear"]) for row in seen] == [(row.block, row.linear) for row in written]
    assert seen[-1] == {
        "block": 11,
        "linear": "model.layers.11.c",
        "bits": 4,
        "group_size": 32,
        "loss": 0.5,
        "relative_loss": 0.001,
        "tokens": 100,
        "damp_percent": 0.05,
        "seconds": 0.1,
        "warnings": ["starved"],
        "attempt": 1,
    }
    other = service_on_each.submit()["id"]
    refused = service_on_each.client.get(f"/v1/jobs/{other}/linears", params={"page_token": token})
    assert refused.json()["code"] == "invalid_page_token"


def test_the_log_shows_its_newest_lines(service_on_each: Service):
    """As many as asked for, oldest first; none before a worker has written any."""
    job_id = service_on_each.submit()["id"]
    path = service_on_each.client.get(f"/v1/jobs/{job_id}").json()["links"]["logs"]
    assert service_on_each.client.get(path).json() == {"object": "list", "data": []}
    job = service_on_each.claim()
    at = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
    lines = [LogLine(number=n, at=at, level="info", source="child", text=f"line {n}") for n in (1, 2, 3)]
    with service_on_each.services.database.transaction() as repository:
        repository.add_log_lines(job.id, job.lease_token, lines)
    shown = service_on_each.client.get(path, params={"tail": 2}).json()["data"]
    assert [line["text"] for line in shown] == ["line 2", "line 3"]
    assert shown[0] == {
        "attempt": 1,
        "number": 2,
        "at": "2026-11-24T09:00:00Z",
        "level": "info",
        "source": "child",
        "text": "line 2",
        "fields": {},
    }
    assert service_on_each.client.get(path, params={"attempt": 2}).json()["data"] == []
    assert service_on_each.client.get(path, params={"tail": 0}).status_code == 422
    assert service_on_each.client.get("/v1/jobs/job_0/logs").status_code == 404
