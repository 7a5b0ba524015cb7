"""Calibration text over HTTP: what a look over it finds is said at the upload, at the submit, and when it is read."""

from __future__ import annotations

import json

import pytest

from tests.api.service import Service, job_request

LINE = "The mill number {n} is that of the river, and it was built for the town."
ENGLISH = "\n".join(LINE.format(n=number) for number in range(40))


def upload(service: Service, text: str) -> dict[str, object]:
    """Stores a text and returns its view."""
    response = service.client.post("/v1/calibration-sets", files={"file": ("mill.txt", text.encode())})
    assert response.status_code == 201, response.text
    answer: dict[str, object] = response.json()
    return answer


def preflight(service: Service, **calibration: object) -> dict[str, object]:
    """Returns what a submit would say."""
    response = service.client.post("/v1/jobs?validate_only=true", json=job_request(calibration=calibration))
    assert response.status_code == 200, response.text
    answer: dict[str, object] = response.json()
    return answer


def test_a_look_over_the_text_is_shown_before_a_job_starts(service: Service):
    """One language, and too few tokens by an estimate that says so; the built-in text has nothing to be said of."""
    stored = upload(service, ENGLISH)
    assert stored["characters"] == len(ENGLISH)
    assert stored["estimated_tokens"] == round(len(ENGLISH) / 4)
    assert any("English only" in str(warning) for warning in stored["warnings"])  # type: ignore[attr-defined]
    assert service.client.get(f"/v1/calibration-sets/{stored['id']}").json() == stored
    told = preflight(service, set=stored["id"], samples=8, seq_len=64)["warnings"]
    assert any("English only" in warning for warning in told)  # type: ignore[attr-defined]
    assert not any("estimated" in warning for warning in told)  # type: ignore[attr-defined]
    many = preflight(service, set=stored["id"], samples=64, seq_len=512)["warnings"]
    assert any("estimated from its characters" in warning for warning in many)  # type: ignore[attr-defined]
    assert not any("only" in warning for warning in preflight(service, set="builtin")["warnings"])  # type: ignore[attr-defined]


def test_conversations_are_taken(service: Service):
    """JSON Lines of messages are a set like any other."""
    lines = "".join(json.dumps({"messages": [{"role": "user", "content": f"Question {n}?"}]}) + "\n" for n in range(3))
    stored = upload(service, lines)
    assert (stored["format"], stored["documents"], stored["conversations"]) == ("jsonl", 3, 3)


@pytest.mark.parametrize("name", ["hub:wikitext2", "hub:acme/words@v1:data/*.parquet#body", "self"])
def test_text_that_the_worker_gets_is_named_in_the_job(service: Service, name: str):
    """The job's spec says which; no set is stored for it."""
    job = service.submit(calibration={"set": name, "packing": "document"})
    assert job["spec"]["calibration"]["set"] == name
    assert job["spec"]["calibration"]["packing"] == "document"
    assert service.client.get("/v1/calibration-sets").json()["data"] == []


@pytest.mark.parametrize("name", ["hub:nothing", "hub:a b/c", "somewhere"])
def test_what_names_no_text_is_refused(service: Service, name: str):
    """At the field."""
    answer = service.client.post("/v1/jobs", json=job_request(calibration={"set": name}))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "#/calibration/set"


def test_a_model_that_writes_its_own_text_needs_the_memory_for_it(service: Service):
    """The estimate is never below that of a stored text."""
    alone, stored = (preflight(service, set=name)["estimate"]["ram_bytes"] for name in ("self", "builtin"))  # type: ignore[index]
    assert alone >= stored
