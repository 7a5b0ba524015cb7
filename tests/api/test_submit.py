"""Submitting: what is stored, what is refused before a job exists, and what a repeated submit does."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx
import pytest

from api.settings import ApiSettings
from core.calibration.builtin import builtin_text
from core.configs import CalibrationConfig
from store.jobs import JobFilter
from tests.api.service import Service, job_request, serve
from tests.core.preflight.folders import make_llama
from tests.servers import free_port


def pointers(response: httpx.Response) -> list[str]:
    return [
        error.get("pointer") or error.get("header") or error.get("parameter") for error in response.json()["errors"]
    ]


def test_a_submit_is_accepted_with_the_place_of_the_job(service_on_each: Service):
    """202, Location, and the very job that Location answers."""
    response = service_on_each.client.post("/v1/jobs", json=job_request(labels={"team": "search"}, priority=3))
    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
    assert service_on_each.client.get(response.headers["location"]).json() == job
    assert (job["state"], job["labels"], job["priority"]) == ("queued", {"team": "search"}, 3)


def test_the_stored_spec_is_what_the_worker_reads(service: Service):
    """The row holds the config's own dict, the root's name with a relative path, and the id of a stored text."""
    job_id = service.submit(bits=8, calibration={"samples": 4})["id"]
    with service.services.database.reading() as repository:
        job = repository.get_job(job_id)
    assert job.spec["model"] == {"source": "path", "root": "models", "path": "tiny"}
    assert job.spec["quantization"]["bits"] == 8
    assert job.spec["quantization"]["schema_version"] == 1
    assert job.spec["calibration"] == {
        "set": job.calibration_set_id,
        **CalibrationConfig(samples=4).to_dict(),
    }


def test_patterns_keep_their_order_and_are_checked_against_the_model(service: Service):
    """The job shows them as they were sent, the row holds pairs; one that decides nothing is refused at once."""
    dynamic = {r"-:.*\.o_proj": {}, r"+:.*": {"bits": 8}}
    job_id = service.submit(dynamic=dynamic)["id"]
    shown = service.client.get(f"/v1/jobs/{job_id}").json()["spec"]["dynamic"]
    assert list(shown.items()) == list(dynamic.items())
    with service.services.database.reading() as repository:
        stored = repository.get_job(job_id).spec["quantization"]["dynamic"]
    assert stored == [[pattern, changes] for pattern, changes in dynamic.items()]
    for wrong in ({"+:lm_head": {"bits": 8}}, {"+:.*": {"bits": 5}}, {"+:(a+)+": {}}):
        response = service.client.post("/v1/jobs", json=job_request(dynamic=wrong))
        assert response.status_code == 422
        assert pointers(response) == ["#/dynamic"]


def test_formats_are_stored_in_their_order_and_checked(service: Service):
    """The worker writes what the row lists; a column order that the second layout cannot hold is refused at once."""
    both = ["gptq", "compressed-tensors"]
    assert service.submit(formats=both)["spec"]["formats"] == both
    assert service.submit()["spec"]["formats"] == ["gptq"]
    refused = job_request(formats=both, desc_act=True, static_groups=False)
    response = service.client.post("/v1/jobs", json=refused)
    assert response.status_code == 422
    assert pointers(response) == ["#/formats"]
    assert "static groups" in response.text


def test_the_builtin_text_is_stored_once_with_its_hash(service: Service):
    """Two jobs share one set, whose bytes are the documents of the offline text."""
    first, second = (service.submit(calibration={"seq_len": 128, "seed": seed}) for seed in (1, 2))
    assert first["spec"]["calibration"]["set"] == second["spec"]["calibration"]["set"]
    with service.services.database.reading() as repository:
        stored = repository.get_calibration_set(first["spec"]["calibration"]["set"])
    content = b"".join(service.services.artifacts.open(stored.sha256))
    documents = [json.loads(line)["text"] for line in content.decode().splitlines()]
    assert documents == builtin_text("calibration")
    assert stored.documents == len(documents)


def test_a_jobs_spec_can_be_submitted_again(service: Service):
    """A spec as answered is a valid request and gives an equal spec."""
    spec = service.submit(calibration={"seq_len": 64}, targets=["transformers"], evaluate=True)["spec"]
    again = service.client.post("/v1/jobs", json=spec)
    assert again.status_code == 202
    assert again.json()["spec"] == spec


@pytest.mark.parametrize(
    ("options", "stored"), [({}, None), ({"evaluate_nf4": True}, None), ({"evaluate_nf4": False}, False)]
)
def test_nf4_is_measured_unless_it_is_turned_off(service: Service, options: dict[str, bool], stored: bool | None):
    """A spec says so only where it is off, and can be submitted again as it is."""
    spec = service.submit(evaluate=True, **options)["spec"]
    assert spec.get("evaluate_nf4") is stored
    assert service.client.post("/v1/jobs", json=spec).json()["spec"] == spec


def test_rtn_takes_no_calibration(service: Service):
    """No calibration is stored with a method that uses none, and one that is given is refused."""
    assert "calibration" not in service.submit(method="rtn")["spec"]
    refused = service.client.post("/v1/jobs", json=job_request(method="rtn", calibration={}))
    assert (refused.status_code, pointers(refused)) == (422, ["#/calibration"])


@pytest.mark.parametrize(
    ("flags", "order"),
    [
        ({}, "desc_act_static"),
        ({"desc_act": False}, "natural_static"),
        ({"static_groups": False}, "desc_act"),
        ({"desc_act": False, "static_groups": False}, "natural"),
        ({"order": "natural"}, "natural"),
    ],
)
def test_flags_are_another_spelling_of_the_order(service: Service, flags: dict[str, object], order: str):
    assert service.submit(**flags)["spec"]["order"] == order


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"bits": 5}, "#/bits"),
        ({"bits": "4"}, "#/bits"),
        ({"bits": True}, "#/bits"),
        ({"group_size": 0}, "#/group_size"),
        ({"group_size": 40}, "#/group_size"),
        ({"group_size": 10**40}, "#/group_size"),
        ({"damp_percent": 1}, "#/damp_percent"),
        ({"order": "up"}, "#/order"),
        ({"order": "natural", "desc_act": True}, "#/order"),
        ({"method": "magic"}, "#/method"),
        ({"method": "rtn", "damp_percent": 0.1}, "#/damp_percent"),
        ({"calibration": {"samples": 0}}, "#/calibration/samples"),
        ({"calibration": {"samples": 100_000}}, "#/calibration/samples"),
        ({"calibration": {"seq_len": 4096}}, "#/calibration/seq_len"),
        ({"calibration": {"set": "cal_" + "0" * 32}}, "#/calibration/set"),
        ({"calibration": {"set": "../etc"}}, "#/calibration/set"),
        ({"calibration": {"text": "x"}}, "#/calibration/text"),
        ({"formats": ["gguf"]}, "#/formats/0"),
        ({"targets": ["ollama"]}, "#/targets/0"),
        ({"targets": ["vllm"], "bits": 2}, "#/bits"),
        ({"labels": {"a b": "c"}}, "#/labels/a b/[key]"),
        ({"labels": {"a": "b\u0000"}}, "#/labels/a"),
        ({"priority": 1000}, "#/priority"),
        ({"max_attempts": 0}, "#/max_attempts"),
        ({"deadline_s": 0}, "#/deadline_s"),
        ({"deadline_s": 10**9}, "#/deadline_s"),
        ({"deadline_s": 1.5}, "#/deadline_s"),
        ({"surprise": 1}, "#/surprise"),
        ({"sur/pr~ise": 1}, "#/sur~1pr~0ise"),
        ({"model": {"source": "hub", "repo": "a/b/c"}}, "#/model/hub/repo"),
        ({"model": {"source": "path", "path": "tiny", "root": "elsewhere"}}, "#/model/root"),
        ({"model": {"source": "path", "path": "ti\u0000ny"}}, "#/model/path/path"),
        ({"model": {"source": "ftp"}}, "#/model"),
        ({"model": {"source": "path", "path": "../data"}}, "#/model"),
        ({"model": {"source": "path", "path": "/etc"}}, "#/model"),
        ({"model": {"source": "path", "path": "absent"}}, "#/model"),
    ],
)
def test_what_cannot_run_is_refused_at_its_field(module_service: Service, changes: dict[str, object], pointer: str):
    """422 with a pointer to the field, a remedy, and no job."""
    response = module_service.client.post("/v1/jobs", json=job_request(**changes))
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert pointer in pointers(response)
    assert response.json()["hint"]
    with module_service.services.database.reading() as repository:
        assert repository.list_jobs(None, JobFilter(), 10) == ()


def test_every_wrong_field_is_named_at_once(service: Service):
    response = service.client.post("/v1/jobs", json=job_request(bits="x", sym=3, calibration={"seed": -1}))
    assert sorted(pointers(response)) == ["#/bits", "#/calibration/seed", "#/sym"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "malformed_json"),
        (b"[]", 422, "invalid_request"),
        (b"", 422, "invalid_request"),
        (b'{"model": NaN}', 422, "invalid_request"),
        (b'{"bits": ' + b"9" * 5000 + b"}", 400, "bad_request"),
        (b'{"a\\ud800": 1}', 422, "invalid_request"),
        (b"\xff\xfe", 400, "malformed_json"),
        (b"[" * 10_000, 400, "bad_request"),
    ],
)
def test_odd_bodies_get_a_problem(module_service: Service, body: bytes, status: int, code: str):
    response = module_service.client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_a_broken_model_folder_is_refused_before_a_job_exists(service: Service, models: Path):
    """Each with its own code: what a worker would only find later is found now."""
    (make_llama(models / "bare") / "tokenizer.json").unlink()
    (make_llama(models / "code") / "modeling.py").touch()
    make_llama(models / "quantized", quantization_config={"quant_method": "gptq"})
    torn = make_llama(models / "torn") / "model.safetensors"
    torn.write_bytes(torn.read_bytes()[:-10])
    (models / "link").symlink_to(models.parent)
    codes = {}
    for name in ("bare", "code", "quantized", "torn", "link"):
        model = {"source": "path", "path": name, "root": "models"}
        codes[name] = service.client.post("/v1/jobs", json=job_request(model=model)).json()["code"]
    assert codes == {
        "bare": "tokenizer_missing",
        "code": "forbidden_file",
        "quantized": "already_quantized",
        "torn": "safetensors_corrupt",
        "link": "model_not_found",
    }


def test_validate_only_stores_no_job(service: Service):
    """The preflight tells the spec, the warnings and what the run needs."""
    response = service.client.post(
        "/v1/jobs?validate_only=true", json=job_request(calibration={"samples": 1, "seq_len": 16})
    )
    assert response.status_code == 200
    body = response.json()
    assert body["object"] == "preflight"
    assert body["estimate"]["artifact_bytes"] > 0
    assert "calibration tokens" in body["warnings"][0]
    assert service.client.get("/v1/jobs").json()["data"] == []


def test_a_hub_model_is_accepted_unseen(service: Service):
    """The API has no network; the worker checks the model once it is there."""
    job = service.submit(model={"source": "hub", "repo": "org/model", "revision": "main"})
    assert job["spec"]["model"] == {"source": "hub", "repo": "org/model", "revision": "main"}


def test_an_idempotency_key_makes_one_job(service_on_each: Service):
    """The same key and meaning give the same job, however it is spelled; another meaning is refused."""
    client, headers = service_on_each.client, {"Idempotency-Key": "k-1"}
    first = client.post("/v1/jobs", json=job_request(), headers=headers)
    spelled = job_request(bits=4, sym=True, desc_act=True, static_groups=True, calibration={"seed": 0})
    again = client.post("/v1/jobs", json=spelled, headers=headers)
    assert first.status_code == again.status_code == 202
    assert first.json()["id"] == again.json()["id"]
    replayed = [answer.headers["idempotency-replayed"] for answer in (first, again)]
    assert replayed == ["false", "true"]
    other = client.post("/v1/jobs", json=job_request(bits=8), headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")
    assert pointers(other) == ["Idempotency-Key"]
    assert len(client.get("/v1/jobs").json()["data"]) == 1


def test_a_bad_idempotency_key_is_refused(service: Service):
    response = service.client.post("/v1/jobs", json=job_request(), headers={"Idempotency-Key": "a b"})
    assert (response.status_code, pointers(response)) == (422, ["idempotency-key"])


def test_a_submit_wakes_a_worker(service: Service, settings: ApiSettings):
    """One message lies in the broker's folder after the answer, none after a replay."""
    messages = settings.broker_dir
    headers = {"Idempotency-Key": "k"}
    service.client.post("/v1/jobs", json=job_request(), headers=headers)
    found = wait_for_messages(messages, 1)
    assert "bitmill.run_next" in found[0].read_text()
    service.client.post("/v1/jobs", json=job_request(), headers=headers)
    assert len(wait_for_messages(messages, 1)) == 1


def wait_for_messages(folder: Path, count: int) -> list[Path]:
    """Waits a little: the wake-up goes out after the answer."""
    deadline = time.monotonic() + 60
    while True:
        found = sorted(folder.rglob("*.msg"))
        if len(found) >= count or time.monotonic() > deadline:
            return found
        time.sleep(0.02)


def test_a_submit_is_accepted_while_the_broker_is_down(settings: ApiSettings):
    """The row is the truth; the broker's absence is told by /readyz, not by a failed submit."""
    dead = settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{free_port()}/0"})
    with serve(dead) as service:
        started = time.monotonic()
        service.submit()
        service.submit()
        assert time.monotonic() - started < 5
        ready = service.client.get("/readyz")
        assert (ready.status_code, ready.json()["status"], ready.json()["broker"]) == (200, "degraded", "failing")
