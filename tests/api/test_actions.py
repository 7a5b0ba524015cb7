"""Cancel, retry, delete: they follow the state diagram and say 409 where they cannot be."""

from __future__ import annotations

from store.sweep import sweep_blobs
from tests.api.service import Service


def act(service: Service, job_id: str, verb: str) -> tuple[int, str]:
    """Returns the status and the job's new state, or the problem's code."""
    response = service.client.post(f"/v1/jobs/{job_id}:{verb}")
    body = response.json()
    return response.status_code, body.get("state") or body["code"]


def test_a_queued_job_is_cancelled_at_once(service_on_each: Service):
    """And cancelling it again changes nothing."""
    job_id = service_on_each.submit()["id"]
    assert act(service_on_each, job_id, "cancel") == (200, "cancelled")
    version = service_on_each.client.get(f"/v1/jobs/{job_id}").json()["version"]
    assert act(service_on_each, job_id, "cancel") == (200, "cancelled")
    assert service_on_each.client.get(f"/v1/jobs/{job_id}").json()["version"] == version


def test_a_running_job_is_asked_to_stop(service_on_each: Service):
    """It is cancelling until its worker says that the child has ended."""
    job_id = service_on_each.submit()["id"]
    job = service_on_each.claim()
    assert act(service_on_each, job_id, "cancel") == (200, "cancelling")
    assert act(service_on_each, job_id, "retry") == (409, "wrong_state")
    with service_on_each.services.database.transaction() as repository:
        repository.cancelled(job.id, job.lease_token)
    assert service_on_each.client.get(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"


def test_a_failed_job_is_queued_again_by_a_retry(service_on_each: Service):
    """With its error gone and its budget fresh; the attempts stay on record."""
    job_id = service_on_each.submit()["id"]
    service_on_each.fail(service_on_each.claim())
    assert act(service_on_each, job_id, "cancel") == (409, "wrong_state")
    assert act(service_on_each, job_id, "retry") == (200, "queued")
    assert act(service_on_each, job_id, "retry") == (200, "queued")
    job = service_on_each.client.get(f"/v1/jobs/{job_id}").json()
    assert (job["error"], job["failures"], job["attempt"]) == (None, 0, 1)
    attempts = service_on_each.client.get(f"/v1/jobs/{job_id}/attempts").json()["data"]
    assert [(attempt["number"], attempt["outcome"]) for attempt in attempts] == [(1, "failed")]
    assert attempts[0]["error"]["code"] == "numerical_error"


def test_a_finished_job_takes_neither(service: Service):
    job_id = service.submit()["id"]
    service.succeed(service.claim(), {"config.json": b"{}"})
    assert act(service, job_id, "cancel") == (409, "wrong_state")
    assert act(service, job_id, "retry") == (409, "wrong_state")


def test_actions_on_nothing_are_404(service: Service):
    assert act(service, "job_0", "cancel") == (404, "not_found")
    assert act(service, "job_0", "retry") == (404, "not_found")


def test_a_deleted_job_is_gone_with_its_files(service_on_each: Service):
    """Only a finished job can be deleted; then neither it nor a part of it is found, and its bytes are free."""
    job_id = service_on_each.submit()["id"]
    refused = service_on_each.client.delete(f"/v1/jobs/{job_id}")
    assert (refused.status_code, refused.json()["code"]) == (409, "wrong_state")
    claimed = service_on_each.claim()
    assert service_on_each.client.delete(f"/v1/jobs/{job_id}").status_code == 409
    service_on_each.succeed(claimed, {"config.json": b"{}"})
    sha256 = service_on_each.client.get(f"/v1/jobs/{job_id}/artifacts").json()["data"][0]["sha256"]
    deleted = service_on_each.client.delete(f"/v1/jobs/{job_id}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    for part in ("", "/events", "/artifacts", "/archive.zip", "/linears", "/attempts"):
        assert service_on_each.client.get(f"/v1/jobs/{job_id}{part}").status_code == 404
    assert service_on_each.client.delete(f"/v1/jobs/{job_id}").status_code == 404
    services = service_on_each.services
    sweep_blobs(services.database, services.artifacts, older_than_seconds=-1)
    assert not services.artifacts.exists(sha256)
    assert services.artifacts.exists(services.builtin_set.for_owner("local").sha256)
