"""Reading: versions and 304, lists by key with signed tokens, filters, and what other owners' jobs look like."""

from __future__ import annotations

import pytest

from store.jobs import JobProgress
from tests.api.service import Service

FAKE_ID = "job_" + "0" * 32


@pytest.mark.parametrize("part", ["", "/progress"])
def test_an_unchanged_job_is_not_sent_again(service_on_each: Service, part: str):
    """304 without a body while the version stands; 200 with a new tag once it has grown."""
    path = service_on_each.submit()["links"]["self"] + part
    client = service_on_each.client
    first = client.get(path)
    tag = first.headers["etag"]
    assert tag == f'W/"{first.json()["version"]}"'
    for given in (tag, tag.removeprefix("W/"), f'"other", {tag}', "*"):
        again = client.get(path, headers={"If-None-Match": given})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    service_on_each.claim()
    changed = client.get(path, headers={"If-None-Match": tag})
    assert (changed.status_code, changed.json()["state"]) == (200, "running")
    assert changed.headers["etag"] != tag


def test_progress_says_what_the_worker_wrote(service: Service):
    """Fraction, blocks, stage and last loss, and a hint when to ask again; none once the job has ended."""
    path = service.submit()["links"]["progress"]
    job = service.claim()
    progress = JobProgress(fraction=0.25, blocks_done=1, blocks_total=4, last_linear="a.b", last_loss=0.5)
    service.progress(job, progress)
    answer = service.client.get(path)
    body = answer.json()
    assert (body["fraction"], body["blocks_done"], body["blocks_total"], body["last_loss"]) == (0.25, 1, 4, 0.5)
    assert (body["stage"], body["attempt"], body["eta_at"]) == ("quantizing", 1, None)
    assert answer.headers["retry-after"] == "1"
    service.fail(job)
    ended = service.client.get(path)
    assert "retry-after" not in ended.headers
    assert ended.json()["error"]["hint"] == "Mend it."


@pytest.mark.parametrize("identifier", [FAKE_ID, "x", "%00", "job_%F0%9F%98%80", "a" * 500, "..%2f.."])
@pytest.mark.parametrize("part", ["", "/progress", "/events", "/linears", "/artifacts", "/attempts", "/archive.zip"])
def test_what_is_not_there_is_a_404(module_service: Service, identifier: str, part: str):
    """Whatever stands in the place of an id, the answer is a problem with a code, never a failure."""
    response = module_service.client.get(f"/v1/jobs/{identifier}{part}")
    assert response.status_code == 404
    assert response.json()["code"] == "not_found"
    assert response.headers["content-type"] == "application/problem+json"


def test_pages_hold_every_job_once_while_others_arrive(service_on_each: Service):
    """Newest first; a job that is submitted between two pages neither repeats nor hides another."""
    ids = [service_on_each.submit(calibration={"seed": seed})["id"] for seed in range(7)]
    seen: list[str] = []
    token = None
    while True:
        query = {"page_size": 3} | ({"page_token": token} if token else {})
        page = service_on_each.client.get("/v1/jobs", params=query).json()
        seen += [job["id"] for job in page["data"]]
        token = page["next_page_token"]
        if token is None:
            break
        service_on_each.submit()
    assert seen == ids[::-1]


def test_filters_select(service_on_each: Service):
    """By state, method, model and label, each alone and together."""
    gptq = service_on_each.submit(labels={"team": "a"})["id"]
    rtn = service_on_each.submit(method="rtn", labels={"team": "b", "x": "1:2"})["id"]
    hub = service_on_each.submit(model={"source": "hub", "repo": "org/name"})["id"]
    service_on_each.client.post(f"/v1/jobs/{rtn}:cancel").raise_for_status()

    def listed(**query: str | list[str]) -> list[str]:
        return [job["id"] for job in service_on_each.client.get("/v1/jobs", params=query).json()["data"]]

    assert listed(state="cancelled") == [rtn]
    assert listed(state="queued") == [hub, gptq]
    assert listed(method="rtn") == [rtn]
    assert listed(model="org/name") == [hub]
    assert listed(label="team:a") == [gptq]
    assert listed(label="x:1:2") == [rtn]
    assert listed(label="team:a", state="cancelled") == []
    assert listed(state=["queued", "cancelled"], method="rtn") == [rtn]
    assert listed(label=["team:b", "x:1:2"]) == [rtn]
    assert listed(label=["team:a", "x:1:2"]) == []
    created = service_on_each.client.get(f"/v1/jobs/{rtn}").json()["created_at"]
    assert listed(created_after=created) == [hub]
    assert listed(created_before=created) == [gptq]


def test_the_queue_position_counts_who_comes_first(service_on_each: Service):
    """By priority and age; a job that is not queued has none."""
    first, second = (service_on_each.submit()["links"]["queue_position"] for _ in range(2))
    urgent = service_on_each.submit(priority=1)["links"]["queue_position"]

    def position(path: str) -> tuple[int | None, int]:
        answer = service_on_each.client.get(path).json()
        return answer["position"], answer["waiting"]

    assert [position(path) for path in (urgent, first, second)] == [(1, 3), (2, 3), (3, 3)]
    service_on_each.claim()
    assert [position(path) for path in (urgent, first, second)] == [(None, 2), (1, 2), (2, 2)]
    assert service_on_each.client.get("/v1/jobs/job_0/queue-position").status_code == 404


def test_a_token_works_only_where_it_was_given(service: Service):
    """Another filter, a changed token and nonsense are refused, naming the parameter."""
    for seed in range(3):
        service.submit(calibration={"seed": seed})
    token = service.client.get("/v1/jobs?page_size=1").json()["next_page_token"]
    flipped = token[:-2] + ("A" if token[-2] != "A" else "B") + token[-1]
    for query in (
        {"page_token": token, "state": "queued"},
        {"page_token": flipped},
        {"page_token": "é" * 20},
        {"page_token": ""},
        {"page_token": "AAAA"},
    ):
        refused = service.client.get("/v1/jobs", params=query)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_page_token")
        assert refused.json()["errors"][0]["parameter"] == "page_token"
    assert service.client.get("/v1/jobs", params={"page_token": token, "page_size": 2}).status_code == 200


def test_an_unchanged_list_is_not_sent_again(service: Service):
    """The page's polling costs a 304; any change of a listed job, and a new job, ends that."""
    job_id = service.submit()["id"]
    tag = service.client.get("/v1/jobs").headers["etag"]
    assert service.client.get("/v1/jobs", headers={"If-None-Match": tag}).status_code == 304
    service.client.post(f"/v1/jobs/{job_id}:cancel").raise_for_status()
    changed = service.client.get("/v1/jobs", headers={"If-None-Match": tag})
    assert changed.status_code == 200
    service.submit()
    assert service.client.get("/v1/jobs", headers={"If-None-Match": changed.headers["etag"]}).status_code == 200


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("state=odd", "state"),
        ("page_size=0", "page_size"),
        ("page_size=1000", "page_size"),
        ("label=team", "label"),
        ("label=%00:x", "label"),
        ("model=%00", "model"),
        ("method=x", "method"),
        ("created_after=2026-11-24T00:00:00", "created_after"),
        ("state=queued&state=odd", "state"),
    ],
)
def test_a_bad_query_names_its_parameter(module_service: Service, query: str, parameter: str):
    response = module_service.client.get(f"/v1/jobs?{query}")
    assert response.status_code == 422
    assert response.json()["errors"][0]["parameter"] == parameter
