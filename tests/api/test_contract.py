"""The contract as a whole: the kept document is the served one, every door asks for a key, a 405 names the methods."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from api.codes import EDGE_CODES
from api.document import document_text
from api.refusals import CODES_OF_STATUS
from api.settings import ApiSettings
from tests.api.service import Service, serve

KEPT = Path(__file__).parents[2] / "docs" / "openapi.json"
OPEN = {"livez", "readyz", "signIn"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The document as the code makes it."""
    made: dict[str, Any] = json.loads(document_text())
    return made


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield re.sub(r"\{[^}]+\}", "x_0", path), method.upper(), operation


def test_the_kept_document_is_the_served_one(document: dict[str, Any]):
    """A change of the contract shows in review: renew it with `make openapi`."""
    assert json.loads(KEPT.read_text()) == document


def bodies(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields what each request and each good answer is made of, with its media type; files have no example."""
    for path, method, operation in operations(document):
        good = [answer for status, answer in operation["responses"].items() if status < "300"]
        for body in (operation.get("requestBody", {}), *good):
            for media_type, content in body.get("content", {}).items():
                if media_type not in {"*/*", "application/zip", "multipart/form-data"}:
                    yield f"{method} {path}", media_type, content


def faults(schema: dict[str, Any], example: object) -> list[str]:
    """Returns what a schema has against an example; FastAPI leaves nulls out of the document's examples."""
    found = Draft202012Validator(schema).iter_errors(example)
    return [error.message for error in found if not (error.validator == "required" and lacks_nulls_alone(error))]


def lacks_nulls_alone(error: ValidationError) -> bool:
    """Whether all that is missing may be null."""
    missing = set(error.schema["required"]) - set(error.instance)
    choices = [error.schema["properties"][name].get("anyOf", []) for name in missing]
    return all({"type": "null"} in choice for choice in choices)


def test_every_body_has_an_example_that_is_one(document: dict[str, Any]):
    """Of JSON, one that its schema takes."""
    for place, media_type, content in bodies(document):
        name = content["schema"].get("$ref", "").removeprefix("#/components/schemas/")
        schema = document["components"]["schemas"].get(name, {})
        examples = [content["example"]] if "example" in content else schema.get("examples", [])
        assert examples, f"{place} {media_type} {name}"
        if media_type == "application/json":
            whole = {"$ref": content["schema"]["$ref"], "components": document["components"]}
            for example in examples:
                assert faults(whole, example) == [], place


def test_every_parameter_and_schema_is_described(document: dict[str, Any]):
    """In words that somebody wrote."""
    for path, method, operation in operations(document):
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), f"{method} {path} {parameter['name']}"
    for name, schema in document["components"]["schemas"].items():
        assert schema.get("description") or "enum" in schema, name


def test_every_door_asks_for_a_key(settings: ApiSettings, document: dict[str, Any]):
    """Where other machines can connect, nothing but health and sign-in answers without one."""
    with serve(settings) as running:
        running.client.post("/v1/api-keys", json={"name": "a", "scopes": ["admin"]})
    reachable = settings.model_copy(update={"host": "0.0.0.0"})  # noqa: S104 - what the rule is about
    with serve(reachable) as running:
        for path, method, operation in operations(document):
            if operation["operationId"] in OPEN:
                continue
            answer = running.client.request(method, path)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), f"{method} {path}"


def test_a_wrong_method_names_all_that_are_right(module_service: Service, document: dict[str, Any]):
    """Also where they are routes of their own."""
    methods: dict[str, set[str]] = {}
    for path, method, _ in operations(document):
        methods.setdefault(path, set()).add(method)
    for path, known in methods.items():
        answer = module_service.client.request("OPTIONS", path)
        assert answer.status_code == 405, path
        assert set(answer.headers["allow"].split(", ")) - {"HEAD"} == known, path


def test_every_code_in_the_source_is_in_the_document(document: dict[str, Any]):
    """What the edge raises, and what its table of statuses and errors can make of the rest."""
    listed = set(document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"])
    written = set(CODES_OF_STATUS.values())
    for path in sorted((KEPT.parents[1] / "api").rglob("*.py")):
        text = path.read_text()
        written |= set(re.findall(r'\bcode="([a-z_]+)"', text))
        written |= set(re.findall(r'InvalidRequestError\(\s*"([a-z_]+)"', text))
    assert written <= listed
    assert set(EDGE_CODES) - written <= {"blob_missing", "http_error"}
