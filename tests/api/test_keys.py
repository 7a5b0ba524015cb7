"""Keys over HTTP: made, changed, revoked, and what their quotas and rates refuse."""

from __future__ import annotations

from typing import Any

import pytest

from api.ratelimit import RateLimiter
from tests.api.service import Service, job_request

SCOPES = ["jobs:read", "jobs:write", "artifacts:read"]


def make(service: Service, **quotas: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Makes a key and returns it with the headers that prove it."""
    response = service.client.post("/v1/api-keys", json={"name": "user", "scopes": SCOPES, "quotas": quotas})
    assert response.status_code == 201, response.text
    key = response.json()
    return key, {"Authorization": f"Bearer {key['bearer']}"}


def test_a_key_lives_from_its_making_to_its_end(guarded: Service):
    """The bearer is shown once; a change counts at once; a revoked key is still listed."""
    key, proof = make(guarded)
    path = f"/v1/api-keys/{key['id']}"
    assert guarded.client.get("/v1/jobs", headers=proof).status_code == 200
    read = guarded.client.get(path).json()
    assert "bearer" not in read
    assert (read["state"], read["scopes"]) == ("active", sorted(SCOPES))
    assert read["usage"] == {"jobs_in_flight": 0, "stored_bytes": 0, "calibration_bytes": 0, "model_bytes": 0}
    changed = guarded.client.patch(path, json={"name": "reader", "scopes": ["artifacts:read"]}).json()
    assert (changed["name"], changed["scopes"], changed["quotas"]) == ("reader", ["artifacts:read"], read["quotas"])
    assert guarded.client.get("/v1/jobs", headers=proof).json()["code"] == "missing_scope"
    expired = guarded.client.patch(path, json={"expires_at": "2020-01-01T00:00:00Z"}).json()
    assert expired["state"] == "expired"
    assert guarded.client.get("/v1/jobs", headers=proof).status_code == 401
    for _ in range(2):
        assert guarded.client.delete(path).status_code == 204
    states = {one["id"]: one["state"] for one in guarded.client.get("/v1/api-keys").json()["data"]}
    assert states[key["id"]] == "revoked"
    assert guarded.client.patch(path, json={}).json()["state"] == "revoked"


def test_only_an_operator_manages_keys(guarded: Service):
    """Or a key could make itself a mightier one."""
    key, proof = make(guarded)
    path = f"/v1/api-keys/{key['id']}"
    calls = [("GET", "/v1/api-keys"), ("POST", "/v1/api-keys"), ("GET", path), ("PATCH", path), ("DELETE", path)]
    for method, place in calls:
        body = {"name": "x", "scopes": ["admin"]} if method in {"POST", "PATCH"} else None
        assert guarded.client.request(method, place, json=body, headers=proof).json()["code"] == "missing_scope"


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["everything"]},
        {"name": "", "scopes": ["admin"]},
        {"name": "a\x00b", "scopes": ["admin"]},
        {"name": "x", "scopes": ["admin"], "expires_at": "2030-01-01T00:00:00"},
        {"name": "x", "scopes": ["admin"], "quotas": {"requests_per_minute": 0}},
        {"name": "x", "scopes": ["admin"], "quotas": {"jobs": 1}},
    ],
)
def test_a_bad_key_is_refused(guarded: Service, body: dict[str, Any]):
    response = guarded.client.post("/v1/api-keys", json=body)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    for path in ("/v1/api-keys/key_0", "/v1/api-keys/a.b"):
        assert guarded.client.get(path).status_code == 404
        assert guarded.client.patch(path, json={"name": "x"}).status_code == 404
        assert guarded.client.delete(path).status_code == 404


def test_jobs_in_flight_are_limited(guarded: Service):
    """One over the limit is not stored; a repeat of an accepted one is no new job; room comes back when one ends."""
    _, proof = make(guarded, jobs_in_flight=2)
    first = guarded.client.post("/v1/jobs", json=job_request(), headers={**proof, "Idempotency-Key": "a"})
    assert guarded.client.post("/v1/jobs", json=job_request(), headers=proof).status_code == 202
    refused = guarded.client.post("/v1/jobs", json=job_request(), headers=proof)
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert int(refused.headers["retry-after"]) > 0
    assert len(guarded.client.get("/v1/jobs", headers=proof).json()["data"]) == 2
    again = guarded.client.post("/v1/jobs", json=job_request(), headers={**proof, "Idempotency-Key": "a"})
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    batch = {"models": [job_request()["model"]], "configs": [{"group_size": 32}]}
    assert guarded.client.post("/v1/batches", json=batch, headers=proof).status_code == 429
    cancelled = guarded.client.post(f"{first.json()['links']['self']}:cancel", headers=proof)
    assert cancelled.json()["state"] == "cancelled"
    assert guarded.client.post("/v1/jobs", json=job_request(), headers=proof).status_code == 202
    retried = guarded.client.post(f"{first.json()['links']['self']}:retry", headers=proof)
    assert retried.json()["code"] == "quota_exceeded"


def test_stored_bytes_and_texts_are_limited(guarded: Service):
    """What is over the limit is refused with what to do; deleting makes room."""
    key, proof = make(guarded, stored_bytes=5, calibration_bytes=100_000)
    job = guarded.client.post("/v1/jobs", json=job_request(method="rtn"), headers=proof).json()
    guarded.succeed(guarded.claim(), {"config.json": b"0123456789"})
    refused = guarded.client.post("/v1/jobs", json=job_request(method="rtn"), headers=proof)
    assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")
    assert "stored_bytes" in refused.json()["detail"]
    assert guarded.client.get(f"/v1/api-keys/{key['id']}").json()["usage"]["stored_bytes"] == 10
    assert guarded.client.delete(job["links"]["self"], headers=proof).status_code == 204
    assert guarded.client.post("/v1/jobs", json=job_request(method="rtn"), headers=proof).status_code == 202
    for size, status in ((90_000, 201), (20_000, 403)):
        text = {"file": ("a.txt", b"word " * (size // 5))}
        assert guarded.client.post("/v1/calibration-sets", files=text, headers=proof).status_code == status
    assert len(guarded.client.get("/v1/calibration-sets", headers=proof).json()["data"]) == 1


def test_requests_are_limited_by_the_minute(guarded: Service):
    """A burst of a minute's worth, then 429 with how long to wait; another key is not held up by it."""
    _, slow = make(guarded, requests_per_minute=3)
    _, other = make(guarded)
    answers = [guarded.client.get("/v1/jobs", headers=slow) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].json()["code"] == "rate_limited"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
    assert guarded.client.get("/v1/jobs", headers=other).status_code == 200


def test_a_bucket_fills_evenly():
    """At 60 a minute, one a second; never more than a minute's worth."""
    now = 0.0
    rates = RateLimiter(clock=lambda: now)
    assert [rates.take("a", 60) for _ in range(61)][-1] == pytest.approx(1.0)
    now = 0.5
    assert rates.take("a", 60) == pytest.approx(0.5)
    now = 1.0
    assert rates.take("a", 60) == 0
    now = 10_000.0
    assert [rates.take("a", 60) > 0 for _ in range(61)].count(False) == 60
