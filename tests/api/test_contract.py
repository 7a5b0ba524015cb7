"""The contract as a whole: the kept document is the served one, every door asks for a key, a 405 names the methods."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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
