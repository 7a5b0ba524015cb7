"""The preflight of a model says what a submit would say, and stores nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.api.service import Service, job_request

TINY = {"source": "path", "path": "tiny", "root": "models"}


def inspect(service: Service, **body: object) -> dict[str, Any]:
    response = service.client.post("/v1/models:inspect", json={"model": TINY, **body})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_a_model_is_described_with_what_it_needs(service: Service):
    """Facts of the headers, and for each config the estimate and warnings that a submit's preflight gives."""
    configs = [{"group_size": 32}, {"method": "rtn", "bits": 8, "group_size": 16}]
    answer = inspect(service, configs=configs)
    assert (answer["model"], answer["accepted"], answer["refusal"]) == (TINY, True, None)
    facts = answer["facts"]
    assert facts["architecture"] == "LlamaForCausalLM"
    assert facts["blocks"] >= 1
    assert 0 < facts["parameters"] < facts["total_bytes"]
    assert 32 in facts["group_sizes"]
    assert facts["group_sizes"][-1] == -1
    for config, check in zip(configs, answer["configs"], strict=True):
        preflight = service.client.post("/v1/jobs?validate_only=true", json=job_request(**config)).json()
        assert check == {
            "accepted": True,
            "refusal": None,
            "warnings": preflight["warnings"],
            "estimate": preflight["estimate"],
        }
    assert service.client.get("/v1/jobs").json()["data"] == []


def test_a_config_that_cannot_run_is_refused_in_the_answer(service: Service):
    """With the code, the words and the field that the submit would be refused with; the others are answered."""
    bad = {"group_size": 7}
    answer = inspect(service, configs=[bad, {"group_size": 32}, {"group_size": 32, "method": "rtn", "calibration": {}}])
    assert [check["accepted"] for check in answer["configs"]] == [False, True, False]
    assert answer["accepted"]
    problem = service.client.post("/v1/jobs", json=job_request(**bad)).json()
    assert answer["configs"][0]["refusal"] == {
        "code": problem["code"],
        "detail": problem["detail"],
        "hint": problem["hint"],
        "pointer": "#/group_size",
    }
    assert not inspect(service, configs=[bad])["accepted"]


def test_a_model_that_cannot_be_used_says_why(service: Service, models: Path):
    """The reason is part of the answer; a path that may not be looked at is an error."""
    (models / "tiny" / "extra.bin").write_bytes(b"x")
    answer = inspect(service)
    assert (answer["accepted"], answer["facts"], answer["configs"]) == (False, None, [])
    problem = service.client.post("/v1/jobs", json=job_request()).json()
    assert (answer["refusal"]["code"], answer["refusal"]["pointer"]) == (problem["code"], "#/model")
    outside = {"model": {"source": "path", "path": "/etc"}}
    assert service.client.post("/v1/models:inspect", json=outside).status_code == 422


def test_a_hub_model_is_judged_by_its_options_alone(service: Service):
    answer = inspect(service, model={"source": "hub", "repo": "org/name"}, configs=[{}, {"bits": 5}])
    assert answer["facts"] is None
    assert [check["accepted"] for check in answer["configs"]] == [True, False]


def test_folders_under_the_roots_are_listed(service: Service):
    """Each as a job names it: put back into a request, it is accepted."""
    listed = service.client.get("/v1/models").json()
    assert (listed["roots"], listed["truncated"]) == (["models"], False)
    [folder] = listed["data"]
    assert (folder["path"], folder["model_type"]) == ("tiny", "llama")
    model = {"source": "path", "root": folder["root"], "path": folder["path"]}
    assert inspect(service, model=model)["facts"]["total_bytes"] <= folder["bytes"]
