"""Batches: one job per model and config, none where one cannot run, and a table that compares them."""

from __future__ import annotations

from typing import Any

from store.jobs import JobState
from tests.api.service import Service, job_request

TINY = {"source": "path", "path": "tiny", "root": "models"}
HUB = {"source": "hub", "repo": "org/name"}


def batch(**changes: object) -> dict[str, Any]:
    configs = [{"bits": 4, "group_size": 32}, {"method": "rtn", "bits": 8, "group_size": 32, "labels": {"own": "1"}}]
    return {"name": "study", "models": [TINY, HUB], "configs": configs, "labels": {"study": "x"}, **changes}


def test_a_batch_is_a_table_of_its_jobs(service_on_each: Service):
    """Each model with each config, in the order of the request; the table fills as jobs run, and its tag changes."""
    accepted = service_on_each.client.post("/v1/batches", json=batch())
    assert accepted.status_code == 202
    path = accepted.headers["location"]
    table = accepted.json()["table"]
    assert [(row["model"], row["method"], row["bits"]) for row in table] == [
        ("tiny", "gptq", 4),
        ("tiny", "rtn", 8),
        ("org/name", "gptq", 4),
        ("org/name", "rtn", 8),
    ]
    assert accepted.json()["states"] == {"queued": 4}
    labels = [service_on_each.client.get(row["job"]).json()["labels"] for row in table]
    assert labels == [{"study": "x"}, {"study": "x", "own": "1"}] * 2
    assert len(service_on_each.client.get("/v1/jobs?label=study:x").json()["data"]) == 4
    tag = service_on_each.client.get(path).headers["etag"]
    assert service_on_each.client.get(path, headers={"If-None-Match": tag}).status_code == 304
    done = service_on_each.succeed(service_on_each.claim(), {"config.json": b"{}", "model.safetensors": b"12345"})
    changed = service_on_each.client.get(path, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    (row,) = (row for row in changed.json()["table"] if row["job_id"] == done.id)
    assert (row["state"], row["artifact_bytes"], row["fraction"]) == (JobState.SUCCEEDED, 7, 1.0)
    assert row["seconds"] >= 0


def test_a_batch_has_rows_for_the_float_model_and_nf4(service: Service):
    """Once for each model that a job was evaluated on; that a worker lacked NF4 counts where no other had it."""
    measured = {"perplexity_float": 11.6, "bytes_float": 1000, "perplexity_quantized": 12.1}
    nf4 = {"perplexity": 12.3, "perplexity_ratio": 12.3 / 11.6, "kl_divergence": 0.05, "top1_agreement": 0.9}
    missing = {"missing": "NF4 needs bitsandbytes."}
    configs = [{"bits": bits, "group_size": 32} for bits in (2, 3, 4)]
    path = service.client.post("/v1/batches", json=batch(models=[TINY], configs=configs)).headers["location"]
    assert service.client.get(path).json()["references"] == []
    for beside in (missing, {**nf4, "bytes": 300}, None):
        job = service.claim()
        with service.services.database.transaction() as repository:
            repository.succeed(job.id, job.lease_token, [], {**measured, **({"nf4": beside} if beside else {})}, [])
        rows = service.client.get(path).json()["references"]
        assert [row["method"] for row in rows] == ["float", "nf4"]
        assert rows[0]["perplexity"] == 11.6
        assert rows[0]["weights_bytes"] == 1000
        assert rows[1]["missing"] == ("NF4 needs bitsandbytes." if beside is missing else None)
    assert {name: rows[1][name] for name in nf4} == nf4
    assert rows[1]["weights_bytes"] == 300


def test_a_batch_with_a_job_that_cannot_run_stores_nothing(service: Service):
    """Every such job is named, by model and config."""
    missing = {**TINY, "path": "none"}
    configs = [{"bits": 4, "group_size": 32}, {"bits": 4, "group_size": 7}, {"method": "rtn", "desc_act": True}]
    refused = service.client.post("/v1/batches", json=batch(models=[TINY, missing], configs=configs))
    assert (refused.status_code, refused.json()["code"]) == (422, "batch_refused")
    pointers = [error["pointer"] for error in refused.json()["errors"]]
    assert "#/configs/1/group_size" in pointers
    assert "#/configs/2/desc_act" in pointers
    assert any(pointer.startswith("#/models/1") for pointer in pointers)
    assert service.client.get("/v1/jobs").json()["data"] == []


def test_a_batch_is_checked_without_being_stored(service: Service):
    """What each job would be told at its submit, by model and config; what cannot run is refused as at the submit."""
    path = "/v1/batches?validate_only=true"
    answer = service.client.post(path, json=batch())
    assert (answer.status_code, answer.json()["object"]) == (200, "batch_preflight")
    cells = answer.json()["cells"]
    assert [(cell["model_index"], cell["config_index"]) for cell in cells] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert cells[0]["estimate"]["artifact_bytes"] < cells[1]["estimate"]["artifact_bytes"]
    assert [cell["estimate"] for cell in cells[2:]] == [None, None]
    refused = service.client.post(path, json=batch(configs=[{"group_size": 7}]))
    assert (refused.status_code, refused.json()["code"]) == (422, "batch_refused")
    assert service.client.get("/v1/jobs").json()["data"] == []
    assert service.client.get("/v1/batches").json()["data"] == []


def test_batches_are_listed_by_page(service_on_each: Service):
    """Newest first, with what became of their jobs; a token of another list is refused."""
    client = service_on_each.client
    made = [client.post("/v1/batches", json=batch(name=name)).json()["id"] for name in ("a", "b", "c")]
    service_on_each.succeed(service_on_each.claim(), {})
    first = client.get("/v1/batches?page_size=2").json()
    rest = client.get("/v1/batches", params={"page_size": 2, "page_token": first["next_page_token"]}).json()
    listed = [*first["data"], *rest["data"]]
    assert [one["id"] for one in listed] == made[::-1]
    assert [one["name"] for one in listed] == ["c", "b", "a"]
    assert rest["next_page_token"] is None
    assert listed[0]["states"] == {"queued": 4}
    assert listed[-1]["states"] == {"queued": 3, "succeeded": 1}
    assert client.get(listed[0]["batch"]).json()["id"] == made[-1]
    token = client.get("/v1/jobs?page_size=1").json()["next_page_token"]
    assert client.get("/v1/batches", params={"page_token": token}).status_code == 400


def test_the_batch_of_a_job_is_found(service_on_each: Service):
    """By the job's id; none for a job of its own, for no job at all, and a token is bound to the job as well."""
    client = service_on_each.client
    first, second = (client.post("/v1/batches", json=batch(name=name)).json() for name in ("a", "b"))
    for made in (first, second):
        listed = client.get("/v1/batches", params={"job": made["table"][1]["job_id"]}).json()
        assert [one["id"] for one in listed["data"]] == [made["id"]]
    alone = client.post("/v1/jobs", json=job_request()).json()["id"]
    for job in (alone, "job_0199b2c4d5e67f0190a1b2c3d4e5f607"):
        assert client.get("/v1/batches", params={"job": job}).json()["data"] == []
    token = client.get("/v1/batches?page_size=1").json()["next_page_token"]
    assert client.get("/v1/batches", params={"job": alone, "page_token": token}).status_code == 400
    assert client.get("/v1/batches?job=none").status_code == 422


def test_a_batch_has_a_size(service: Service):
    for changes in ({"models": []}, {"configs": []}, {"configs": [{"bits": 4, "group_size": 32}] * 51}):
        assert service.client.post("/v1/batches", json=batch(**changes)).status_code == 422
    assert service.client.post("/v1/batches", json=batch(configs=[{"model": TINY}])).status_code == 422


def test_a_repeated_batch_is_stored_once(service: Service):
    headers = {"Idempotency-Key": "again"}
    first, second = (service.client.post("/v1/batches", json=batch(), headers=headers) for _ in range(2))
    assert first.headers["location"] == second.headers["location"]
    assert [answer.headers["idempotency-replayed"] for answer in (first, second)] == ["false", "true"]
    assert len(service.client.get("/v1/jobs").json()["data"]) == 4
    conflict = service.client.post("/v1/batches", json=batch(name="other"), headers=headers)
    assert conflict.json()["code"] == "idempotency_conflict"


def test_no_batch_is_404(service: Service):
    assert service.client.get("/v1/batches/bat_0").status_code == 404
    assert service.client.get("/v1/batches/no%20id").status_code == 404
