"""Cancel and retry: they follow the state diagram, may be repeated, and say 409 where they cannot be."""

from __future__ import annotations

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
