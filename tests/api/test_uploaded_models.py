"""Uploads of models: checked as folders are, stored by file, named by jobs; what is refused leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.settings import ApiSettings
from core.preflight import resources
from store.models import ModelFile, content_sha256
from store.sweep import sweep_blobs
from tests.api.service import Service, job_request, serve
from tests.api.test_keys import make
from tests.api.test_uploads import multipart, wait_until
from tests.conftest import Bucket
from tests.core.preflight.archives import FORMS, folder_files, of_type, pack, tar_of, zip_of
from tests.core.preflight.folders import make_llama, shard

PATH = "/v1/uploaded-models"
ABSENT = f"mdl_{'0' * 32}"


def upload(service: Service, content: bytes, name: str = "tiny.tar", **headers: str) -> httpx.Response:
    return service.client.post(PATH, files={"file": (name, content, "application/octet-stream")}, headers=headers)


def stored(service: Service, content: bytes) -> dict[str, Any]:
    response = upload(service, content)
    assert response.status_code == 201, response.text
    model: dict[str, Any] = response.json()
    return model


def left(service: Service) -> list[str]:
    """Returns what of uploads lies in the service's folders and store."""
    settings = service.services.settings
    folders = (settings.data_dir / "uploads", settings.cache_dir / "outlines", settings.data_dir / "artifacts")
    return [str(path) for folder in folders for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def files(models: Path) -> dict[str, bytes]:
    """The files of the tiny model."""
    return folder_files(models / "tiny")


@pytest.mark.parametrize("form", FORMS)
def test_a_model_is_stored_by_file(service_on_each: Service, files: dict[str, bytes], form: str):
    """201 with its place, files and hashes; each file is a blob of its own; what is no part of it is left out."""
    packed = {"tiny/README.md": b"#", **{f"tiny/{name}": content for name, content in files.items()}}
    response = upload(service_on_each, pack(packed, form), f"tiny.{form}")
    assert response.status_code == 201, response.text
    model = response.json()
    assert response.headers["location"] == f"{PATH}/{model['id']}"
    assert (model["name"], model["model_type"], model["files"]) == (f"tiny.{form}", "llama", len(files))
    assert model["size_bytes"] == sum(map(len, files.values()))
    assert {one["name"]: one["sha256"] for one in model["contents"]} == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items()
    }
    for one in model["contents"]:
        assert b"".join(service_on_each.services.artifacts.open(one["sha256"])) == files[one["name"]]
    assert model["sha256"] == content_sha256(ModelFile(**one) for one in model["contents"])
    assert service_on_each.client.get(response.headers["location"]).json() == model
    assert service_on_each.client.get(PATH).json()["data"] == [{**model, "contents": None}]
    services = service_on_each.services
    assert not list((services.settings.data_dir / "uploads").iterdir())
    assert sweep_blobs(services.database, services.artifacts, older_than_seconds=-1) == 0


def test_the_same_files_are_the_same_model(service: Service, files: dict[str, bytes]):
    """However they are packed, under the first name; a shard of two models is stored once."""
    first = stored(service, pack(files))
    again = upload(service, pack({f"x/{name}": content for name, content in files.items()}, "zip"), "again.zip").json()
    assert again == first
    other = stored(service, pack({**files, "tokenizer.json": b'{"other": 1}'}))
    assert other["id"] != first["id"]
    blobs = {one["sha256"] for model in (first, other) for one in model["contents"]}
    assert len(blobs) == len(files) + 1
    assert len(service.client.get(PATH).json()["data"]) == 2


def test_a_bucket_holds_the_files(settings: ApiSettings, bucket: Bucket, files: dict[str, bytes]):
    """Of a store on another machine, and what preflight reads of them comes back from there."""
    remote = settings.model_copy(update={"artifacts_url": bucket.url, "s3_endpoint": bucket.endpoint})
    with serve(remote) as service:
        model = stored(service, pack(files, "tar.gz"))
        for one in model["contents"]:
            assert b"".join(service.services.artifacts.open(one["sha256"])) == files[one["name"]]
    elsewhere = remote.model_copy(update={"cache_dir": settings.cache_dir / "elsewhere"})
    with serve(elsewhere) as service:
        assert service.submit(model={"source": "upload", "id": model["id"]})["spec"]["model"]["name"] == "tiny.tar"


def changed(name: str, content: bytes | None) -> Callable[[dict[str, bytes]], bytes]:
    """Returns an archive of the files with one of them changed, added or left out."""

    def make_one(files: dict[str, bytes]) -> bytes:
        rest = {other: data for other, data in files.items() if other != name}
        return pack(rest if content is None else {**rest, name: content})

    return make_one


def config(**changes: object) -> Callable[[dict[str, bytes]], bytes]:
    def make_one(files: dict[str, bytes]) -> bytes:
        values = {**json.loads(files["config.json"]), **changes}
        return pack({**files, "config.json": json.dumps(values).encode()})

    return make_one


def linked(files: dict[str, bytes]) -> bytes:
    plain = [(name, content, None) for name, content in files.items() if name != "tokenizer.json"]
    return tar_of([*plain, ("tokenizer.json", b"", of_type(b"2", "/etc/passwd"))])


def encrypted(files: dict[str, bytes]) -> bytes:
    content = bytearray(zip_of(list(files.items())))
    content[content.index(b"PK\1\2") + 8] |= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("make_archive", "status", "code", "named"),
    [
        (lambda _: b"", 422, "archive_invalid", "tar"),
        (lambda _: b"no archive", 422, "archive_invalid", "tar"),
        (lambda files: pack(files)[:-20_000], 422, "archive_invalid", ""),
        (lambda files: pack(files, "tar.gz")[:-9], 422, "archive_invalid", ""),
        (lambda files: pack(files, "zip")[:-9], 422, "archive_invalid", ""),
        (encrypted, 422, "archive_invalid", "encrypted"),
        (linked, 422, "archive_unsafe", "tokenizer.json"),
        (changed("../evil.json", b"{}"), 422, "archive_unsafe", "../evil.json"),
        (changed("/evil.json", b"{}"), 422, "archive_unsafe", "/evil.json"),
        (changed("./config.json", b"{}"), 422, "archive_unsafe", "config.json"),
        (lambda files: pack({**files, "a.txt": bytes(2_100_000)}, "tar.gz"), 413, "archive_too_large", "a.txt"),
        (lambda files: pack({**files, "a.txt": bytes(2_500_000)}), 413, "body_too_large", ""),
        (changed("pytorch_model.bin", b"x"), 422, "forbidden_file", "pytorch_model.bin"),
        (changed("sub/modeling.py", b"x"), 422, "forbidden_file", "sub/modeling.py"),
        (config(auto_map={"AutoModel": "x.Y"}), 422, "remote_code_refused", "config.json"),
        (config(model_type="t5"), 422, "unsupported_architecture", "t5"),
        (config(quantization_config={"bits": 4}), 422, "already_quantized", "config.json"),
        (changed("config.json", b"{"), 422, "model_config_invalid", "config.json"),
        (changed("config.json", None), 422, "model_config_missing", "config.json"),
        (changed("tokenizer.json", None), 422, "tokenizer_missing", "tokenizer"),
        (changed("model.safetensors", None), 422, "weights_missing", "model.safetensors"),
        (changed("model.safetensors", b"\xff" * 100), 422, "safetensors_corrupt", "model.safetensors"),
        (changed("model.safetensors", b""), 422, "safetensors_corrupt", "model.safetensors"),
    ],
)
def test_what_no_job_could_use_is_refused(
    service: Service,
    files: dict[str, bytes],
    make_archive: Callable[[dict[str, bytes]], bytes],
    status: int,
    code: str,
    named: str,
):
    """By member and remedy, pointing at the file; no blob, no row, no file of ours stays."""
    response = upload(service, make_archive(files))
    problem = response.json()
    assert (response.status_code, problem["code"]) == (status, code), problem
    assert named in problem["detail"] + problem["hint"]
    assert problem["hint"]
    if code != "body_too_large":
        assert problem["errors"][0]["pointer"] == "#/file"
    assert service.client.get(PATH).json()["data"] == []
    assert left(service) == []


def test_a_model_of_shards_must_have_them_all(service: Service, models: Path):
    shard(models / "tiny")
    files = folder_files(models / "tiny")
    missing = next(name for name in files if name.startswith("model-00002"))
    response = upload(service, pack({name: content for name, content in files.items() if name != missing}))
    assert (response.status_code, response.json()["code"]) == (422, "shard_missing")
    assert missing in response.json()["detail"]
    assert stored(service, pack(files))["files"] == len(files)


def test_a_job_names_an_upload_as_it_names_a_folder(service: Service, files: dict[str, bytes]):
    """Inspection, preflight and submit say of it what they say of the same folder; the list finds it by its name."""
    model = stored(service, pack(files))
    source = {"source": "upload", "id": model["id"]}
    spec = {**source, "name": "tiny.tar", "sha256": model["sha256"]}
    local = job_request()["model"]
    for path, body in (("/v1/models:inspect", {}), ("/v1/jobs?validate_only=true", {"group_size": 32})):
        mine, theirs = (service.client.post(path, json={"model": one, **body}).json() for one in (source, local))
        assert {**mine, "model": None, "spec": None} == {**theirs, "model": None, "spec": None}
        assert mine.get("model", mine.get("spec", {}).get("model")) == spec
    job = service.submit(model=source)
    assert job["spec"]["model"] == spec
    assert job["needs"] == service.submit()["needs"]
    assert service.submit(model=job["spec"]["model"])["spec"] == job["spec"]
    wrong = service.client.post("/v1/jobs", json=job_request(model={**spec, "sha256": "0" * 64})).json()
    assert (wrong["code"], wrong["errors"][0]["pointer"]) == ("invalid_config", "#/model/sha256")
    listed = service.client.get("/v1/jobs", params={"model": "tiny.tar"}).json()["data"]
    assert {json.dumps(one["spec"]["model"]) for one in listed} == {json.dumps(spec)}
    batch = {"models": [source, local], "configs": [{"group_size": 32}]}
    assert service.client.post("/v1/batches", json=batch).status_code == 202
    refused = service.client.post("/v1/jobs", json=job_request(model=source, group_size=7)).json()
    assert refused["errors"][0]["pointer"] == "#/group_size"


def test_the_outline_is_made_again_where_it_is_gone(service: Service, files: dict[str, bytes]):
    """Another API process has none of its own, or it was let go: the store has what is read."""
    source = {"source": "upload", "id": stored(service, pack(files))["id"]}
    outlines = service.services.settings.cache_dir / "outlines"
    [outline] = outlines.iterdir()
    names = {path.name: path.stat().st_size for path in outline.iterdir()}
    for path in outline.iterdir():
        path.unlink()
    outline.rmdir()
    service.submit(model=source)
    [again] = outlines.iterdir()
    assert {path.name: path.stat().st_size for path in again.iterdir()} == names
    assert again == outline


def test_what_is_gone_cannot_be_named(service: Service, files: dict[str, bytes]):
    """Kept while a job needs it; afterwards 422 at the submit, with the field."""
    model = stored(service, pack(files))
    path, source = f"{PATH}/{model['id']}", {"source": "upload", "id": model["id"]}
    assert service.client.patch(path, json={"pinned": True}).json()["pinned"]
    job = service.submit(model=source)
    refused = service.client.delete(path)
    assert (refused.status_code, refused.json()["code"]) == (409, "wrong_state")
    assert job["id"] in refused.json()["detail"]
    service.client.post(f"{job['links']['self']}:cancel")
    assert service.client.delete(path).status_code == 204
    for method in ("GET", "DELETE"):
        assert service.client.request(method, path).status_code == 404
    assert service.client.patch(path, json={}).status_code == 404
    for url in ("/v1/jobs", "/v1/models:inspect"):
        response = service.client.post(url, json={"model": source})
        assert (response.status_code, response.json()["code"]) == (422, "uploaded_model_unknown")
        assert response.json()["errors"][0]["pointer"] == "#/model/id"
    assert service.client.post("/v1/jobs", json={"model": {"source": "upload", "id": "tiny"}}).status_code == 422
    assert sweep_blobs(service.services.database, service.services.artifacts, older_than_seconds=-1) == len(files)


def test_an_upload_is_its_owners(guarded: Service, models: Path):
    """Another key gets 404 and 422, and the same files make a model of its own; an operator sees both."""
    content = pack(folder_files(models / "tiny"))
    (_, mine), (_, theirs) = make(guarded), make(guarded)
    model = upload(guarded, content, **mine).json()
    path, source = f"{PATH}/{model['id']}", {"source": "upload", "id": model["id"]}
    assert guarded.client.get(path, headers=mine).status_code == 200
    for method in ("GET", "DELETE"):
        assert guarded.client.request(method, path, headers=theirs).status_code == 404
    assert guarded.client.patch(path, json={"pinned": True}, headers=theirs).status_code == 404
    assert guarded.client.get(PATH, headers=theirs).json()["data"] == []
    assert guarded.client.post("/v1/jobs", json={"model": source}, headers=theirs).status_code == 422
    assert guarded.client.post("/v1/models:inspect", json={"model": source}, headers=theirs).status_code == 422
    assert upload(guarded, content, **theirs).json()["id"] != model["id"]
    assert len(guarded.client.get(PATH).json()["data"]) == 2


def test_a_keys_bytes_are_limited(guarded: Service, models: Path):
    """Before the body where nothing is left, before the store where it does not fit; the same again is no more."""
    files = folder_files(models / "tiny")
    size = sum(map(len, files.values()))
    key, proof = make(guarded, model_bytes=size)
    assert upload(guarded, pack(files), **proof).status_code == 201
    assert upload(guarded, pack(files, "zip"), **proof).status_code == 201
    before = left(guarded)
    refused = upload(guarded, pack({**files, "tokenizer.json": b'{"a": 1}'}), **proof)
    assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")
    assert "model_bytes" in refused.json()["detail"]
    assert left(guarded) == before
    assert guarded.client.get(f"/v1/api-keys/{key['id']}").json()["usage"]["model_bytes"] == size
    changes = {"quotas": {"model_bytes": 10}}
    assert guarded.client.patch(f"/v1/api-keys/{key['id']}", json=changes).status_code == 200
    head = {"Content-Length": "1000", "Content-Type": "multipart/form-data; boundary=b", **proof}
    assert _answer_to_head(guarded, head).startswith(b"HTTP/1.1 403")


def _answer_to_head(service: Service, headers: dict[str, str]) -> bytes:
    """Returns what is answered before a byte of the body was sent."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    address = (service.client.base_url.host, service.client.base_url.port or 80)
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
        return connection.recv(4096)


def test_the_disk_is_weighed_before_the_body(service: Service, monkeypatch: pytest.MonkeyPatch):
    """By what the client announces; the file system here is told to be nearly full."""
    usage = resources.shutil.disk_usage
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda path: usage(path)._replace(free=900))
    head = {"Content-Length": "1000", "Content-Type": "multipart/form-data; boundary=b"}
    answer = _answer_to_head(service, head)
    assert answer.startswith(b"HTTP/1.1 507")
    assert left(service) == []


def test_a_malformed_form_is_refused(module_service: Service):
    for body, status in ((multipart([], None), 422), ({"json": {}}, 415)):
        assert module_service.client.post(PATH, **body).status_code == status


def test_a_body_of_unknown_length_is_capped_as_it_comes(service: Service):
    def pieces() -> Iterator[bytes]:
        yield b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(30):
            yield b"x" * 100_000

    headers = {"Content-Type": "multipart/form-data; boundary=cut"}
    response = service.client.post(PATH, content=pieces(), headers=headers)
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
    assert left(service) == []


def test_a_client_that_goes_away_leaves_nothing(service: Service, files: dict[str, bytes]):
    """Half an archive and a closed connection: the file never had a name."""
    content = pack(files)
    opened: list[int] = []
    form = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a.tar"\r\n\r\n'
    with socket.create_connection((service.client.base_url.host, service.client.base_url.port or 80)) as connection:
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {2 * len(content)}\r\n"
        connection.sendall(head.encode() + b"Content-Type: multipart/form-data; boundary=cut\r\n\r\n" + form + content)
        wait_until(lambda: bool(opened.extend(_spooled(service)) or opened))
        assert left(service) == []
    wait_until(lambda: _spooled(service) == [])
    assert service.client.get(PATH).json()["data"] == []
    assert left(service) == []


def _spooled(service: Service) -> list[int]:
    """Returns the sizes of the nameless files that this process holds open in the folder of uploads."""
    folder = str(service.services.settings.data_dir / "uploads")
    sizes = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            if str(descriptor.readlink()).startswith(folder) and (size := descriptor.stat().st_size):
                sizes.append(size)
        except FileNotFoundError:
            continue
    return sizes


def test_a_new_model_root_is_no_upload(service: Service, models: Path):
    """The list of folders and the list of uploads are two."""
    make_llama(models / "second")
    assert len(service.client.get("/v1/models").json()["data"]) == 2
    assert service.client.get(PATH).json()["data"] == []
    assert service.client.get(f"{PATH}/{ABSENT}").status_code == 404
