"""Keeping and letting go over HTTP, and the hub token that goes in and never comes out."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta

from api.settings import ApiSettings
from store.kept import KeptKind
from tests.api.service import Service, job_request


def test_a_job_is_pinned_and_dated(service: Service):
    """Its version grows; a bare number is no time."""
    job = service.submit()
    path = job["links"]["self"]
    assert (job["pinned"], job["expires_at"]) == (False, None)
    kept = service.client.patch(path, json={"pinned": True, "expires_at": "2030-01-01T00:00:00Z"}).json()
    assert (kept["pinned"], kept["expires_at"]) == (True, "2030-01-01T00:00:00Z")
    assert kept["version"] > job["version"]
    assert service.client.patch(path, json={}).json()["version"] == kept["version"]
    assert service.client.patch(path, json={"expires_at": None}).json()["expires_at"] is None
    assert service.client.patch(path, json={"expires_at": 0}).status_code == 422
    assert service.client.patch("/v1/jobs/job_0", json={"pinned": True}).status_code == 404


def test_a_calibration_set_is_pinned_and_deleted(service: Service):
    """Not while a job needs it."""
    made = service.client.post("/v1/calibration-sets", files={"file": ("a.txt", b"some text " * 50)}).json()
    path = f"/v1/calibration-sets/{made['id']}"
    assert service.client.patch(path, json={"pinned": True}).json()["pinned"]
    job = service.submit(calibration={"set": made["id"]})
    refused = service.client.delete(path)
    assert (refused.status_code, refused.json()["code"]) == (409, "wrong_state")
    assert job["id"] in refused.json()["detail"]
    service.client.post(f"{job['links']['self']}:cancel")
    assert service.client.delete(path).status_code == 204
    assert service.client.delete(path).status_code == 404
    assert service.client.get(path).status_code == 404


def test_a_warning_shows_until_it_is_taken_back(service: Service):
    """In the resource itself, read alone and in the list."""
    made = service.client.post("/v1/calibration-sets", files={"file": ("a.txt", b"some text " * 50)}).json()
    assert (made["expires_at"], made["expiry_warned_at"]) == (None, None)
    path = f"/v1/calibration-sets/{made['id']}"
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    service.client.patch(path, json={"expires_at": soon})
    with service.services.database.transaction() as repository:
        assert repository.warn_of_kept(KeptKind.CALIBRATION_SET, 7200) == (made["id"],)
    warned = service.client.get(path).json()["expiry_warned_at"]
    assert warned is not None
    assert warned in [one["expiry_warned_at"] for one in service.client.get("/v1/calibration-sets").json()["data"]]
    assert service.client.patch(path, json={"pinned": True}).json()["expiry_warned_at"] is None


def test_a_hub_token_is_stored_encrypted_and_never_shown(service: Service, settings: ApiSettings):
    token = "hf_abcdefghijklmnop"  # noqa: S105 - an example
    assert service.client.get("/v1/hub-token").json()["stored"] is False
    stored = service.client.put("/v1/hub-token", json={"token": token})
    assert stored.json()["stored"] is True
    for answer in (stored, service.client.get("/v1/hub-token")):
        assert token not in answer.text
    path = settings.database_url.removeprefix("sqlite:///")
    with sqlite3.connect(path) as connection:
        [(sealed,)] = connection.execute("SELECT token_sealed FROM hub_tokens").fetchall()
    connection.close()
    assert token not in sealed
    assert service.services.vault.open(sealed) == token
    assert service.client.put("/v1/hub-token", json={"token": "with space"}).status_code == 422
    assert service.client.delete("/v1/hub-token").status_code == 204
    assert service.client.get("/v1/hub-token").json()["stored"] is False


def test_a_result_is_published_with_the_callers_token(service: Service):
    """Not without one, and not before there is a result; a request that asks for it is refused at once, too."""
    wish = {"repo": "acme/tiny-4bit"}
    job = service.submit()
    path = f"{job['links']['self']}:publish"
    assert service.client.post(path, json=wish).json()["code"] == "wrong_state"
    service.succeed(service.claim(), {"config.json": b"{}"})
    assert service.client.post(path, json=wish).json()["code"] == "hub_token_missing"
    assert service.client.get(f"{job['links']['self']}/publications").json()["data"] == []
    refused = service.client.post("/v1/jobs", json=job_request(publish_to=wish))
    assert (refused.status_code, refused.json()["code"]) == (409, "hub_token_missing")
    service.client.put("/v1/hub-token", json={"token": "hf_x"})
    made = service.client.post(path, json=wish)
    assert (made.status_code, made.json()["state"], made.json()["private"]) == (202, "pending", True)
    [listed] = service.client.get(f"{job['links']['self']}/publications").json()["data"]
    assert listed == made.json()
    for repo in ("tiny", "a/b/c", "acme/..", ""):
        assert service.client.post(path, json={"repo": repo}).status_code == 422
    asked = service.submit(publish_to=wish)
    assert asked["spec"]["publish_to"] == {"repo": "acme/tiny-4bit", "private": True}
