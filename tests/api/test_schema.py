"""The contract: request fields are the config's fields with the config's defaults, and OpenAPI tells all of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any

import pytest
from pydantic import BaseModel

from api.schemas.files import ArtifactView, CalibrationSetView
from api.schemas.jobs import JobList, JobView
from api.schemas.models import InspectRequest
from api.schemas.requests import BatchRequest, CalibrationOptions, JobRequest, PathModel, default_of
from api.submission import quantization_config
from core.configs import CONFIG_CLASSES, CalibrationConfig, GPTQConfig, Method, all_options, methods_with
from store.jobs import NewJob
from tests.api.service import Service

# What a request has beside the options of the configs.
REQUEST_ONLY = {
    "model",
    "method",
    "preset",
    "desc_act",
    "static_groups",
    "calibration",
    "budget",
    "formats",
    "targets",
    "evaluate",
    "evaluate_nf4",
}
REQUEST_ONLY |= {"needs", "publish_to", "labels", "priority", "max_attempts", "deadline_s"}


def defaults_of(config_class: type[Any]) -> dict[str, Any]:
    return {field.name: field.default for field in fields(config_class)}


def test_request_fields_and_config_fields_are_one_set():
    """Every option of every config can be asked for under its own name, and nothing else can."""
    options = {name for config_class in CONFIG_CLASSES.values() for name in defaults_of(config_class)}
    assert set(JobRequest.model_fields) - REQUEST_ONLY == options
    assert set(CalibrationOptions.model_fields) - {"set"} == set(defaults_of(CalibrationConfig))


def test_request_defaults_are_the_configs_defaults():
    """What OpenAPI shows as a default is what the config writes."""
    for config_class in CONFIG_CLASSES.values():
        options = defaults_of(config_class)
        assert MISSING not in options.values()
        assert {name: JobRequest.model_fields[name].default for name in options} == options
    calibration = defaults_of(CalibrationConfig)
    assert {name: CalibrationOptions.model_fields[name].default for name in calibration} == calibration
    for name in ("priority", "max_attempts"):
        assert JobRequest.model_fields[name].default == default_of(NewJob, name)
    assert JobRequest.model_fields["deadline_s"].default == default_of(NewJob, "deadline_seconds")


def test_an_empty_request_is_the_configs_own_default():
    request = JobRequest(model=PathModel(source="path", path="x"))
    assert quantization_config(request) == GPTQConfig()


@pytest.fixture(scope="module")
def document(module_service: Service) -> dict[str, Any]:
    """The OpenAPI document as it is served."""
    served: dict[str, Any] = module_service.client.get("/openapi.json").json()
    return served


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_operation_is_described(document: dict[str, Any]):
    """With a name, words, a tag, and each status at most once."""
    names = []
    for place, operation in operations(document):
        assert operation["summary"], place
        assert operation["description"], place
        assert operation["tags"], place
        names.append(operation["operationId"])
    assert len(set(names)) == len(names)


def test_every_error_answer_is_a_problem(document: dict[str, Any]):
    """Also FastAPI's own 422, whose form is never sent."""
    for place, operation in operations(document):
        errors = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        for status, answer in errors.items():
            if place == "get /readyz":
                continue
            assert list(answer["content"]) == ["application/problem+json"], (place, status)
        if place.split()[1].startswith("/v1/"):
            assert {"401", "403"} <= set(errors), place
            assert operation["operationId"] == "signIn" or operation["security"], place
    assert "HTTPValidationError" not in json.dumps(document)


def test_every_reference_leads_somewhere(document: dict[str, Any]):
    names = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) <= names


@pytest.mark.parametrize(
    "model", [JobRequest, BatchRequest, InspectRequest, JobView, JobList, ArtifactView, CalibrationSetView]
)
def test_the_examples_are_valid(model: type[BaseModel]):
    """An example that the schema would refuse misleads."""
    example = model.model_json_schema()["examples"][0]
    assert model.model_validate_json(json.dumps(example))


def test_the_example_of_a_job_can_be_submitted():
    """A job's spec is a request."""
    example = JobView.model_json_schema()["examples"][0]
    assert JobRequest.model_validate(example["spec"])


def test_an_option_of_some_methods_names_them(document: dict[str, Any]):
    """So that a form shows only what the chosen method has; what all have says nothing."""
    properties = document["components"]["schemas"]["JobRequest"]["properties"]
    told = {name: field.get("x-methods") for name, field in properties.items()}
    assert told["bits"] is None
    assert told["damp_percent"] == ["gptq"]
    assert told["channel_steps"] == ["awq"]
    assert told["preset"] == ["gptq"]
    assert told["calibration"] == ["gptq", "awq", "adaround"]
    for name, methods in told.items():
        if name in all_options():
            assert set(methods or Method) == set(methods_with(name))
