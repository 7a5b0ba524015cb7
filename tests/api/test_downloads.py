"""Files of a finished job: exact bytes, ranges and conditions, one archive of known length, checksums that hold."""

from __future__ import annotations

import base64
import hashlib
import io
import subprocess
import zipfile
from pathlib import Path

import httpx
import pytest

from api.settings import ApiSettings
from tests.api.service import Service, serve
from tests.conftest import Bucket

CONTENT = bytes(range(256)) * 4100
FILES = {"model.safetensors": CONTENT, "config.json": b'{"a": 1}', "sub/öl.txt": b"", "SHA256SUMS": b"of the worker"}
DIGEST = hashlib.sha256(CONTENT).digest()
TAG = f'"{DIGEST.hex()}"'


@pytest.fixture(scope="module")
def links(module_service: Service) -> dict[str, str]:
    """The paths of a finished job that no test changes: its files by name, and its own links."""
    return publish(module_service)


def publish(service: Service) -> dict[str, str]:
    job = service.submit()
    service.succeed(service.claim(), FILES)
    listed = service.client.get(job["links"]["artifacts"]).json()["data"]
    return {**job["links"], **{file["name"]: file["content"] for file in listed}}


def fetch(service: Service, path: str, **headers: str) -> httpx.Response:
    """GET with headers whose `_` stand for `-`."""
    return service.client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_the_list_tells_name_size_and_hash(module_service: Service, links: dict[str, str]):
    listed = module_service.client.get(links["artifacts"]).json()["data"]
    assert [file["name"] for file in listed] == sorted(FILES)
    assert {file["name"]: (file["size_bytes"], file["sha256"]) for file in listed} == {
        name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in FILES.items()
    }


def test_a_file_comes_whole(module_service: Service, links: dict[str, str]):
    """Exact bytes, their length, a strong tag of their hash, the digest, and never rendered in the page."""
    response = fetch(module_service, links["model.safetensors"])
    assert (response.status_code, response.content) == (200, CONTENT)
    assert response.headers["content-length"] == str(len(CONTENT))
    assert response.headers["etag"] == TAG
    assert response.headers["repr-digest"] == f"sha-256=:{base64.b64encode(DIGEST).decode()}:"
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["content-disposition"] == 'attachment; filename="model.safetensors"'
    assert response.headers["x-content-type-options"] == "nosniff"


def test_a_name_beyond_ascii_is_given_both_ways(module_service: Service, links: dict[str, str]):
    response = fetch(module_service, links["sub/öl.txt"])
    assert response.headers["content-disposition"] == "attachment; filename=\"_l.txt\"; filename*=UTF-8''%C3%B6l.txt"
    assert (response.content, response.headers["content-length"]) == (b"", "0")


@pytest.mark.parametrize(
    ("given", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=100-", 100, len(CONTENT)),
        ("bytes=-5", len(CONTENT) - 5, len(CONTENT)),
        ("bytes=5-99999999999", 5, len(CONTENT)),
        ("bytes=-99999999999", 0, len(CONTENT)),
    ],
)
def test_one_range_comes_as_asked(module_service: Service, links: dict[str, str], given: str, start: int, end: int):
    response = fetch(module_service, links["model.safetensors"], Range=given)
    assert (response.status_code, response.content) == (206, CONTENT[start:end])
    assert response.headers["content-range"] == f"bytes {start}-{end - 1}/{len(CONTENT)}"
    assert response.headers["content-length"] == str(end - start)
    assert response.headers["etag"] == TAG


@pytest.mark.parametrize("given", ["bytes=9-3", "bytes=", "bytes=-", "bytes=a-b", "lines=0-1", "bytes=0-1,5-6", "x"])
def test_a_range_that_is_none_is_ignored(module_service: Service, links: dict[str, str], given: str):
    """Malformed ones and several at once get the whole file, as RFC 9110 allows."""
    response = fetch(module_service, links["model.safetensors"], Range=given)
    assert (response.status_code, response.content) == (200, CONTENT)


@pytest.mark.parametrize("given", [f"bytes={len(CONTENT)}-", "bytes=-0", "bytes=99999999999-99999999999"])
def test_a_range_outside_is_refused_with_the_size(module_service: Service, links: dict[str, str], given: str):
    response = fetch(module_service, links["model.safetensors"], Range=given)
    assert (response.status_code, response.json()["code"]) == (416, "range_not_satisfiable")
    assert response.headers["content-range"] == f"bytes */{len(CONTENT)}"


def test_if_range_guards_against_a_splice(module_service: Service, links: dict[str, str]):
    """The range where the tag still holds, the whole file where it does not."""
    path = links["model.safetensors"]
    assert fetch(module_service, path, Range="bytes=1-2", If_Range=TAG).status_code == 206
    for other in ('"other"', f"W/{TAG}", "Tue, 24 Nov 2026 00:00:00 GMT"):
        assert fetch(module_service, path, Range="bytes=1-2", If_Range=other).status_code == 200


def test_conditions_are_kept(module_service: Service, links: dict[str, str]):
    """304 where the caller has it, also before a range; 412 where it wants another one."""
    path = links["model.safetensors"]
    held = fetch(module_service, path, If_None_Match=TAG, Range="bytes=0-1")
    assert (held.status_code, held.content, held.headers["etag"]) == (304, b"", TAG)
    assert fetch(module_service, path, If_None_Match='"other"').status_code == 200
    assert fetch(module_service, path, If_Match=TAG).status_code == 200
    refused = fetch(module_service, path, If_Match='"other"')
    assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")


@pytest.mark.parametrize("name", ["model.safetensors", "archive"])
def test_head_gives_the_headers_alone(module_service: Service, links: dict[str, str], name: str):
    """The same length and tag as GET, no body; a Range has no meaning there."""
    head = module_service.client.head(links[name], headers={"Range": "bytes=0-1"})
    get = fetch(module_service, links[name])
    assert (head.status_code, head.content) == (200, b"")
    for header in ("etag", "content-length", "content-type", "content-disposition"):
        assert head.headers[header] == get.headers[header]


def test_the_archive_holds_every_file_at_the_length_that_was_told(module_service: Service, links: dict[str, str]):
    """One folder, relative names, exact bytes; a second look costs a 304."""
    response = fetch(module_service, links["archive"])
    assert int(response.headers["content-length"]) == len(response.content)
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        folders = {name.split("/", 1)[0] for name in archive.namelist()}
        assert len(folders) == 1
        folder = folders.pop()
        assert folder.startswith("tiny_gptq_w4_g32_")
        assert {name.removeprefix(f"{folder}/"): archive.read(name) for name in archive.namelist()} == FILES
    assert fetch(module_service, links["archive"], If_None_Match=response.headers["etag"]).status_code == 304


def test_the_checksums_are_what_sha256sum_reads(module_service: Service, links: dict[str, str], tmp_path: Path):
    """Checked by the tool itself, over files that were downloaded one by one."""
    for name in FILES:
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(fetch(module_service, links[name]).content)
    (tmp_path / "sums").write_text(fetch(module_service, links["checksums"]).text)
    subprocess.run(["sha256sum", "--check", "--strict", "sums"], cwd=tmp_path, check=True, capture_output=True)
    assert len((tmp_path / "sums").read_text().splitlines()) == len(FILES) - 1


def test_an_unfinished_job_has_no_files(service: Service):
    job = service.submit()
    assert service.client.get(job["links"]["artifacts"]).json()["data"] == []
    for part in ("archive", "checksums"):
        assert service.client.get(job["links"][part]).status_code == 404


def test_another_jobs_file_is_not_there(module_service: Service, links: dict[str, str]):
    """A file is reached through its own job only."""
    other = module_service.submit()["id"]
    artifact = links["config.json"].split("/")[5]
    assert module_service.client.get(f"/v1/jobs/{other}/artifacts/{artifact}/content").status_code == 404


def test_a_lost_blob_is_the_services_fault(service: Service):
    """A row without its bytes is a 500 with a code before any byte is sent, not a 404."""
    links = publish(service)
    service.services.artifacts.delete(DIGEST.hex())
    response = fetch(service, links["model.safetensors"])
    assert (response.status_code, response.json()["code"]) == (500, "blob_missing")


def test_a_blob_that_is_lost_on_the_way_breaks_the_archive(service: Service):
    """The length was promised, so a client can tell that the body is not whole."""
    links = publish(service)
    service.services.artifacts.delete(DIGEST.hex())
    with pytest.raises(httpx.RemoteProtocolError):
        fetch(service, links["archive"])


def test_a_bucket_gives_its_files_itself_where_that_is_asked(settings: ApiSettings, bucket: Bucket):
    """The URL needs no key and ends; unasked, the bytes come through the service."""
    scaled = settings.model_copy(update={"artifacts_url": bucket.url, "s3_endpoint": bucket.endpoint})
    with serve(scaled) as running:
        path = publish(running)["model.safetensors"]
        assert running.client.get(path).content == CONTENT
        sent_on = running.client.get(path, params={"redirect": "true"})
        assert (sent_on.status_code, sent_on.headers["cache-control"]) == (307, "no-store")
        place = sent_on.headers["location"]
        assert place.startswith(bucket.endpoint)
        assert httpx.get(place).content == CONTENT
        assert httpx.get(place, headers={"Range": "bytes=5-9"}).content == CONTENT[5:10]
        assert running.client.get(path, params={"redirect": "maybe"}).status_code == 422


def test_a_folder_has_no_urls_of_its_own(module_service: Service, links: dict[str, str]):
    response = module_service.client.get(links["model.safetensors"], params={"redirect": "true"})
    assert (response.status_code, response.content) == (200, CONTENT)
