"""Who may do what: loopback rules, keys and scopes, owners apart, caps, headers, and failures that tell nothing."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.services import KeyRequiredError
from api.settings import ApiSettings, is_loopback
from store.session import Database
from tests.api.service import Service, job_request, serve

ALL_SCOPES = ("jobs:read", "jobs:write", "jobs:cancel", "artifacts:read")


@pytest.fixture
def reachable(settings: ApiSettings) -> ApiSettings:
    """Settings of a service that other machines could reach."""
    return settings.model_copy(update={"host": "0.0.0.0"})  # noqa: S104 - what the rule is about


def make_key(settings: ApiSettings, *scopes: str, expires_at: datetime | None = None) -> str:
    """Returns the bearer text of a new key."""
    database = Database(settings.database_url)
    with database.transaction() as repository:
        _, bearer = repository.add_api_key("test", scopes, expires_at)
    database.dispose()
    return bearer


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


# Loopback


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "LOCALHOST", "[::1]"])
def test_loopback_names_are_answered_without_a_key(module_service: Service, host: str):
    assert module_service.client.get("/v1/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.", "10.0.0.1:8080", "[::2]"])
@pytest.mark.parametrize("path", ["/", "/v1/jobs", "/theme.js", "/assets/index.js"])
def test_other_names_are_refused_on_loopback(module_service: Service, host: str, path: str):
    """A name that was pointed at 127.0.0.1 from outside (DNS rebinding) sees nothing."""
    response = module_service.client.get(path, headers={"Host": host})
    assert (response.status_code, response.json()["code"]) == (403, "host_refused")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/calibration-sets", "/v1/jobs/job_0:cancel"])
def test_writes_of_foreign_pages_are_refused(module_service: Service, path: str, headers: dict[str, str]):
    """Every write, also those that a plain HTML form could send."""
    response = module_service.client.post(path, headers=headers, files={"file": ("a.txt", b"text")})
    assert (response.status_code, response.json()["code"]) == (403, "cross_origin_refused")


def test_the_own_page_may_write(module_service: Service):
    origin = str(module_service.client.base_url).rstrip("/")
    headers = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
    assert (
        module_service.client.post("/v1/jobs?validate_only=1", json=job_request(), headers=headers).status_code == 200
    )


@pytest.mark.parametrize("media_type", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", "x"])
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/job_0:cancel"])
def test_form_encoded_writes_are_refused(module_service: Service, path: str, media_type: str):
    """415, naming what is taken; also without a body."""
    for content in (b"a=b", b""):
        response = module_service.client.post(path, content=content, headers={"Content-Type": media_type})
        assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")


def test_a_wider_binding_than_configured_is_refused(settings: ApiSettings):
    """`--host 0.0.0.0` beside BITMILL_HOST=127.0.0.1 would be a service without keys: it answers nobody."""

    async def ask(address: str) -> int:
        transport = httpx.ASGITransport(create_app(settings))
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{address}:8080") as client:
            return (await client.get("/livez", headers={"Host": "localhost"})).status_code

    assert asyncio.run(ask("192.0.2.1")) == 403
    assert asyncio.run(ask("127.0.0.1")) == 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *((name, True) for name in ("127.0.0.1", "127.8.8.8", "::1", "localhost")),
        *((name, False) for name in ("0.0.0.0", "::", "10.0.0.1", "example.org", "")),  # noqa: S104 - names to tell apart
    ],
)
def test_loopback_is_told_from_the_rest(host: str, expected: bool):
    assert is_loopback(host) is expected


# Keys


def test_no_reachable_service_starts_without_a_key(reachable: ApiSettings):
    """The error says what to do; a revoked or expired key does not count."""

    async def start() -> None:
        app = create_app(reachable)
        async with app.router.lifespan_context(app):
            pass

    for expires_at in (None, datetime.now(UTC) - timedelta(seconds=1)):
        if expires_at is not None:
            make_key(reachable, "admin", expires_at=expires_at)
        with pytest.raises(KeyRequiredError, match="bitmill keys create"):
            asyncio.run(start())
    make_key(reachable, "admin")
    asyncio.run(start())


@pytest.fixture
def guarded(reachable: ApiSettings) -> Iterator[Service]:
    """A service that asks for keys."""
    make_key(reachable, "admin")
    with serve(reachable) as running:
        yield running


def test_without_a_key_nothing_but_health_and_the_page_is_seen(guarded: Service):
    """401 with the challenge of RFC 6750; liveness, readiness, the page and the API's description stay open."""
    for path in ("/v1/jobs", "/v1/jobs/job_0", "/v1/calibration-sets", "/metrics", "/v1/jobs/job_0/archive.zip"):
        response = guarded.client.get(path)
        assert (response.status_code, response.json()["code"]) == (401, "unauthenticated")
        assert response.headers["www-authenticate"].startswith("Bearer")
    assert guarded.client.post("/v1/jobs", json=job_request()).status_code == 401
    for path in ("/livez", "/readyz", "/", "/theme.js", "/openapi.json"):
        assert guarded.client.get(path).status_code == 200


@pytest.mark.parametrize(
    "value",
    ["Bearer bm_0_0", "Bearer x", "Bearer", "Basic dTpw", "bm_0_0", "Bearer bm_é_é".encode().decode("latin-1")],
)
def test_what_is_no_key_is_a_401(guarded: Service, value: str):
    response = guarded.client.get("/v1/jobs", headers={"Authorization": value.encode("latin-1")})
    assert (response.status_code, response.json()["code"]) == (401, "unauthenticated")


def test_a_revoked_and_an_expired_key_are_refused(guarded: Service):
    """From the next request on."""
    settings = guarded.services.settings
    expired = make_key(settings, "admin", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert guarded.client.get("/v1/jobs", headers=bearer(expired)).status_code == 401
    key = make_key(settings, "admin")
    assert guarded.client.get("/v1/jobs", headers=bearer(key)).status_code == 200
    with guarded.services.database.transaction() as repository:
        repository.revoke_api_key("key_" + key.split("_")[1])
    assert guarded.client.get("/v1/jobs", headers=bearer(key)).status_code == 401


def test_a_wrong_key_is_refused_on_loopback_too(module_service: Service):
    """Who names a key wants to be that key, not the machine's owner."""
    assert module_service.client.get("/v1/jobs", headers=bearer("bm_0_0")).status_code == 401


def test_each_scope_opens_its_own_doors(guarded: Service):
    """And no other, but who may submit may cancel: 403 names the scope that is missing."""
    settings = guarded.services.settings
    keys = {scope: bearer(make_key(settings, scope)) for scope in ALL_SCOPES}
    calls: dict[str, Any] = {
        "jobs:read": lambda headers: guarded.client.get("/v1/jobs", headers=headers),
        "jobs:write": lambda headers: guarded.client.post("/v1/jobs", json=job_request(), headers=headers),
        "jobs:cancel": lambda headers: guarded.client.post("/v1/jobs/job_0:cancel", headers=headers),
        "artifacts:read": lambda headers: guarded.client.get("/v1/jobs/job_0/archive.zip", headers=headers),
    }
    for needed, call in calls.items():
        for held, headers in keys.items():
            response = call(headers)
            if needed == held or (needed, held) == ("jobs:cancel", "jobs:write"):
                assert response.status_code in {200, 202, 404}
                continue
            assert (response.status_code, response.json()["code"]) == (403, "missing_scope")
            assert needed in response.json()["detail"]


def test_owners_see_nothing_of_each_other(guarded: Service):
    """Every door to another's job, file or text says 404; an admin sees all."""
    settings = guarded.services.settings
    mine, theirs = (bearer(make_key(settings, *ALL_SCOPES)) for _ in range(2))
    admin = bearer(make_key(settings, "admin"))
    job = guarded.client.post("/v1/jobs", json=job_request(), headers=mine).json()
    guarded.succeed(guarded.claim(), {"config.json": b"{}"})
    (file,) = guarded.client.get(job["links"]["artifacts"], headers=mine).json()["data"]
    text = guarded.client.post("/v1/calibration-sets", files={"file": ("a.txt", b"some text")}, headers=mine).json()
    reads = [*job["links"].values(), f"{job['links']['self']}/attempts", file["content"]]
    reads.append(f"/v1/calibration-sets/{text['id']}")
    batch = {"models": [job_request()["model"]], "configs": [{"group_size": 32}]}
    reads.append(guarded.client.post("/v1/batches", json=batch, headers=mine).headers["location"])
    for path in reads:
        for key, status in ((mine, 200), (theirs, 404), (admin, 200)):
            # Not read to the end: a stream has none.
            with guarded.client.stream("GET", path, headers=key) as response:
                assert response.status_code == status, path
    for verb in ("cancel", "retry"):
        assert guarded.client.post(f"{job['links']['self']}:{verb}", headers=theirs).status_code == 404
    assert guarded.client.delete(job["links"]["self"], headers=theirs).status_code == 404
    stolen = job_request(calibration={"set": text["id"]})
    refused = guarded.client.post("/v1/jobs", json=stolen, headers=theirs)
    assert refused.json()["code"] == "calibration_set_unknown"
    for path in ("/v1/jobs", "/v1/calibration-sets"):
        assert guarded.client.get(path, headers=theirs).json()["data"] == []
        assert guarded.client.get(path, headers=admin).json()["data"] != []


def test_an_idempotency_key_is_its_owners(guarded: Service):
    """Two owners may use the same one."""
    ids = set()
    for _ in range(2):
        key = bearer(make_key(guarded.services.settings, *ALL_SCOPES))
        headers = {**key, "Idempotency-Key": "same"}
        ids.add(guarded.client.post("/v1/jobs", json=job_request(), headers=headers).json()["id"])
    assert len(ids) == 2


# Caps, headers, failures


def test_a_large_body_is_refused(module_service: Service):
    """By its length before it is read, and as it comes where it has none."""
    content = b'{"labels": "' + b"x" * 20_000 + b'"}'
    headers = {"Content-Type": "application/json"}
    told = module_service.client.post("/v1/jobs", content=content, headers=headers)
    untold = module_service.client.post("/v1/jobs", content=iter([content]), headers=headers)
    for response in (told, untold):
        assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 200), ("/v1/jobs", 200), ("/nothing", 404), ("/v1/jobs?page_size=x", 422), ("/livez", 200)],
)
def test_every_answer_carries_the_security_headers(module_service: Service, path: str, status: int):
    response = module_service.client.get(path)
    assert response.status_code == status
    assert "default-src 'self'" in response.headers["content-security-policy"]
    assert "unsafe" not in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in response.headers
    assert response.headers["cache-control"] == "private, no-cache"


def test_a_request_id_is_given_or_taken_over(module_service: Service):
    """A harmless one of the caller's is kept; anything that could forge a log line is not."""
    given = module_service.client.get("/livez", headers={"X-Request-Id": "trace-1.a"})
    assert given.headers["x-request-id"] == "trace-1.a"
    made = module_service.client.get("/nothing", headers={"X-Request-Id": 'a"b c'})
    assert made.headers["x-request-id"].startswith("req_")
    assert made.json()["request_id"] == made.headers["x-request-id"]


@pytest.mark.parametrize(("method", "path", "status"), [("DELETE", "/v1/jobs", 405), ("GET", "/nothing", 404)])
def test_routing_errors_are_problems_too(module_service: Service, method: str, path: str, status: int):
    response = module_service.client.request(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


def test_a_failure_tells_nothing_of_its_insides(service: Service, settings: ApiSettings):
    """A row that cannot be shown: 500 as a problem with the request id, the reason in the log alone."""
    job = service.submit()
    with sqlite3.connect(settings.database_url.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE jobs SET spec = '{\"model\": 1}'")
    connection.close()
    response = service.client.get(job["links"]["self"])
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert "KeyError" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"
    assert service.client.get("/livez").status_code == 200
