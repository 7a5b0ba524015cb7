"""Workers over HTTP: what they have, what room is left, drain and resume, and a job told that nobody can take it."""

from __future__ import annotations

from store.workers import Capability
from tests.api.service import WORKER, Service, job_request
from tests.conformance.samples import worker_facts


def register(service: Service, worker_id: str = WORKER, **changes: object) -> None:
    with service.services.database.transaction() as repository:
        repository.register_worker(worker_facts(worker_id, **changes))


def test_workers_are_listed_with_their_jobs_and_room(service_on_each: Service):
    """One worker of two slots with one job has room for one more; another class has none."""
    register(service_on_each)
    register(service_on_each, "host.example-7-wrk_2", queue_classes=("gpu",), slots=1)
    job = service_on_each.submit()
    service_on_each.claim()
    service_on_each.submit()
    listed = service_on_each.client.get("/v1/workers").json()
    states = {worker["id"]: (worker["state"], worker["busy"], worker["jobs"]) for worker in listed["data"]}
    assert states == {WORKER: ("busy", 1, [job["id"]]), "host.example-7-wrk_2": ("idle", 0, [])}
    room = {
        row["queue_class"]: (row["workers"], row["slots"], row["free"], row["waiting"]) for row in listed["capacity"]
    }
    assert room == {"default": (1, 2, 1, 1), "gpu": (1, 1, 1, 0)}


def test_a_worker_is_drained_and_resumed(service: Service):
    """The states follow; an unknown worker is a 404."""
    register(service)
    service.submit()
    claimed = service.claim()
    answers = [service.client.post(f"/v1/workers/{WORKER}:{action}") for action in ("drain", "drain", "resume")]
    states = [answer.json()["state"] for answer in answers]
    assert states == ["draining", "draining", "busy"]
    service.fail(claimed)
    service.client.post(f"/v1/workers/{WORKER}:drain")
    assert service.client.get(f"/v1/workers/{WORKER}").json()["state"] == "drained"
    assert service.client.get("/v1/workers").json()["capacity"][0]["workers"] == 0
    for path in ("/v1/workers/none:drain", "/v1/workers/a%20b:drain"):
        assert service.client.post(path).status_code == 404


def test_a_job_goes_by_what_it_needs(service: Service):
    """A local model's memory is estimated; the answer names what is missing, and the job's spec is a request again."""
    place = service.client.get(service.submit()["links"]["queue_position"]).json()
    assert (place["position"], place["workers"], place["obstacle"]["code"]) == (1, 0, "no_worker")
    register(service, capability=Capability(device="cpu", memory_bytes=1_000_000))
    job = service.submit(needs={"device": "cpu"})
    assert job["needs"]["memory_bytes"] > 1_000_000
    place = service.client.get(job["links"]["queue_position"]).json()
    assert place["obstacle"]["code"] == "memory_too_small"
    assert "1,000,000" in place["obstacle"]["message"]
    small = service.submit(needs={"memory_bytes": 1_000})
    place = service.client.get(small["links"]["queue_position"]).json()
    assert (place["obstacle"], place["workers"], place["free_slots"]) == (None, 1, 2)
    assert small["spec"]["needs"] == {"memory_bytes": 1_000}
    assert service.client.post("/v1/jobs", json=small["spec"]).status_code == 202


def test_a_queue_class_that_is_not_there_is_refused(service: Service):
    response = service.client.post("/v1/jobs", json=job_request(needs={"queue_class": "gpu"}))
    assert (response.status_code, response.json()["code"]) == (422, "invalid_config")
    assert response.json()["errors"][0]["pointer"] == "#/needs/queue_class"
    assert service.submit(needs={"queue_class": "default"})["queue_class"] == "default"
