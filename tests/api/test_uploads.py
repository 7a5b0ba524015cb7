"""Calibration uploads: streamed, sniffed, hashed, deduplicated, capped; nothing is left behind by what is refused."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from api.settings import ApiSettings
from tests.api.service import Service, serve

PATH = "/v1/calibration-sets"
TEXT = "Ein Satz über Öl. " * 100
LINES = "".join(json.dumps({"text": f"document {number}"}) + "\n" for number in range(12))


def upload(service: Service, content: bytes, name: str = "notes.txt", **fields: str) -> httpx.Response:
    return service.client.post(PATH, files={"file": (name, content, "application/octet-stream")}, data=fields)


@pytest.mark.parametrize(("content", "kind", "documents"), [(TEXT.encode(), "text", 1), (LINES.encode(), "jsonl", 12)])
def test_a_text_is_stored_as_it_came(service_on_each: Service, content: bytes, kind: str, documents: int):
    """201 with its place, hash and count; the blob has the very bytes; a job can use it."""
    response = upload(service_on_each, content)
    assert response.status_code == 201, response.text
    stored = response.json()
    assert response.headers["location"] == f"{PATH}/{stored['id']}"
    assert (stored["format"], stored["documents"], stored["name"]) == (kind, documents, "notes.txt")
    assert stored["sha256"] == hashlib.sha256(content).hexdigest()
    assert b"".join(service_on_each.services.artifacts.open(stored["sha256"])) == content
    job = service_on_each.submit(calibration={"set": stored["id"]})
    assert job["spec"]["calibration"]["set"] == stored["id"]
    read = service_on_each.client.get(response.headers["location"]).json()
    assert {**read, "warnings": stored["warnings"]} == stored
    assert [one["id"] for one in service_on_each.client.get(PATH).json()["data"]] == [stored["id"]]


def test_the_same_bytes_are_the_same_set(service: Service):
    first, again = upload(service, TEXT.encode()), upload(service, TEXT.encode(), "copy.txt")
    assert first.json()["id"] == again.json()["id"]
    assert len(service.client.get(PATH).json()["data"]) == 1


@pytest.mark.parametrize(
    ("file", "field", "name"),
    [
        ("../../etc/passwd", "", "passwd"),
        ("C:\\texts\\a.txt", "", "a.txt"),
        ("a.txt", "My text", "My text"),
        ("a.txt", "tab\there\u202e", "tabhere"),
        ("a.txt", "x" * 300, "x" * 200),
        ("", " ", "upload"),
    ],
)
def test_a_name_is_made_harmless(service: Service, file: str, field: str, name: str):
    """No folder, nothing unprintable, not endless."""
    body = multipart([("name", None, field.encode())] if field else [], file)
    assert service.client.post(PATH, **body).json()["name"] == name


def multipart(
    parts: list[tuple[str, str | None, bytes]], file_name: str | None = "a.txt", text: bytes = b"text"
) -> dict[str, Any]:
    """Returns a body written by hand: clients disagree on odd names."""
    lines = []
    for name, file, content in [*parts, *([("file", file_name, text)] if file_name is not None else [])]:
        escaped = None if file is None else file.replace("\\", "\\\\")
        disposition = f'form-data; name="{name}"' + ("" if escaped is None else f'; filename="{escaped}"')
        lines.append(b"--cut\r\nContent-Disposition: " + disposition.encode() + b"\r\n\r\n" + content + b"\r\n")
    headers = {"Content-Type": "multipart/form-data; boundary=cut"}
    return {"content": b"".join(lines) + b"--cut--\r\n", "headers": headers}


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 422, "calibration_empty"),
        (b"  \n ", 422, "calibration_empty"),
        (b"abc\0def", 422, "calibration_binary"),
        (b"\xff\xfe\xfa text", 422, "calibration_binary"),
        (b'{"text": "a"}\n{"text": ', 422, "calibration_malformed"),
        (b'{"body": "a"}\n', 422, "calibration_malformed"),
        (b"a" * 250_000, 413, "body_too_large"),
        (b"a" * 400_000, 413, "body_too_large"),
    ],
)
def test_what_is_no_text_is_refused(service: Service, settings: ApiSettings, content: bytes, status: int, code: str):
    """With its own code; no set and no temporary file stays."""
    response = upload(service, content)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert service.client.get(PATH).json()["data"] == []
    assert list(settings.data_dir.glob("uploads/*")) == []


def test_a_body_of_unknown_length_is_capped_as_it_comes(service: Service):
    def pieces() -> Iterator[bytes]:
        yield b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(100):
            yield b"x" * 10_000
        yield b"\r\n--cut--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=cut"}
    response = service.client.post(PATH, content=pieces(), headers=headers)
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (multipart([], None), 422, "invalid_request"),
        (multipart([("name", None, b"x")], None), 422, "invalid_request"),
        (multipart([("other", None, b"x")]), 422, "invalid_request"),
        (multipart([("file", "b.txt", b"x")]), 422, "invalid_request"),
        (multipart([("name", None, b"x" * 1000)]), 422, "invalid_request"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "malformed_multipart"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, 400, "malformed_multipart"),
        ({"content": b"text", "headers": {"Content-Type": "text/plain"}}, 415, "unsupported_media_type"),
        ({"json": {}}, 415, "unsupported_media_type"),
    ],
)
def test_a_malformed_form_is_refused(module_service: Service, body: dict[str, Any], status: int, code: str):
    response = module_service.client.post(PATH, **body)
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_a_slow_upload_ends_at_its_time(settings: ApiSettings):
    """408, and the file is gone."""
    with serve(settings.model_copy(update={"upload_seconds": 0.3})) as service:

        def pieces() -> Iterator[bytes]:
            yield b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc'
            time.sleep(1)
            yield b"\r\n--cut--\r\n"

        headers = {"Content-Type": "multipart/form-data; boundary=cut"}
        response = service.client.post(PATH, content=pieces(), headers=headers)
        assert (response.status_code, response.json()["code"]) == (408, "upload_incomplete")
        assert list(settings.data_dir.glob("uploads/*")) == []


def test_a_client_that_goes_away_leaves_nothing(service: Service, settings: ApiSettings):
    """Half an upload and a closed connection: no set, no file."""
    with socket.create_connection((service.client.base_url.host, service.client.base_url.port or 80)) as connection:
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
        connection.sendall(head.encode() + b"Content-Type: multipart/form-data; boundary=cut\r\n\r\n--cut\r\n")
        wait_until(lambda: list(settings.data_dir.glob("uploads/*")) != [])
    wait_until(lambda: list(settings.data_dir.glob("uploads/*")) == [])
    assert service.client.get(PATH).json()["data"] == []


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
