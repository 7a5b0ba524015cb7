"""Sessions: a browser's cookie in place of the key, its token against foreign writes, and every way that it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from api.settings import ApiSettings
from tests.api.service import Service, job_request, serve


@pytest.fixture
def bearer(settings: ApiSettings) -> Iterator[tuple[Service, str, str]]:
    """A service, the id of a key and its bearer text."""
    with serve(settings) as running:
        made = running.client.post("/v1/api-keys", json={"name": "me", "scopes": ["jobs:read", "jobs:write"]}).json()
        yield running, made["id"], made["bearer"]


@contextmanager
def sign_in(service: Service, key: str) -> Iterator[tuple[httpx.Client, dict[str, str]]]:
    """Yields a client with the session's cookie, and what its writes carry."""
    with httpx.Client(base_url=service.client.base_url) as browser:
        answer = browser.post("/v1/session", json={"key": key})
        assert answer.status_code == 201, answer.text
        yield browser, {"X-CSRF-Token": answer.json()["csrf_token"]}


def test_a_session_stands_for_its_key(bearer: tuple[Service, str, str]):
    """Reads need the cookie alone, writes the token too; the page learns both again when it is loaded anew."""
    service, key_id, key = bearer
    with sign_in(service, key) as (browser, token):
        cookie = next(iter(browser.cookies.jar))
        assert cookie.name == "bitmill_session"
        assert cookie.has_nonstandard_attr("HttpOnly")
        assert cookie.get_nonstandard_attr("SameSite") == "lax"
        assert cookie.value not in key
        me = browser.get("/v1/session").json()
        assert (me["by"], me["key_id"], me["scopes"]) == ("cookie", key_id, ["jobs:read", "jobs:write"])
        assert me["csrf_token"] == token["X-CSRF-Token"]
        assert browser.get("/v1/jobs").status_code == 200
        for headers in ({}, {"X-CSRF-Token": "0" * 64}):
            refused = browser.post("/v1/jobs", json=job_request(), headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (403, "csrf_token_wrong")
        job = browser.post("/v1/jobs", json=job_request(), headers=token)
        assert job.status_code == 202
        assert service.client.get(job.json()["links"]["self"], headers={"Authorization": f"Bearer {key}"}).is_success
        assert browser.get("/v1/api-keys").json()["code"] == "missing_scope"


def test_the_token_of_one_session_is_none_for_another(bearer: tuple[Service, str, str]):
    service, _, key = bearer
    with sign_in(service, key) as (first, _), sign_in(service, key) as (second, token):
        assert first.post("/v1/jobs", json=job_request(), headers=token).status_code == 403
        assert second.post("/v1/jobs", json=job_request(), headers=token).status_code == 202


def test_a_session_ends_by_signing_out_by_its_key_and_by_time(bearer: tuple[Service, str, str]):
    """The old cookie is a 401 that takes the cookie away; on loopback the next request is the machine's again."""
    service, key_id, key = bearer
    with sign_in(service, key) as (browser, token):
        stolen = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        assert browser.delete("/v1/session", headers=token).status_code == 204
        assert not browser.cookies
        over = service.client.get("/v1/jobs", headers={"Cookie": stolen})
        assert (over.status_code, over.json()["code"]) == (401, "session_over")
        assert "Max-Age=0" in over.headers["set-cookie"]
        assert service.client.get("/v1/session").json()["by"] == "loopback"
    with sign_in(service, key) as (browser, _):
        assert service.client.delete(f"/v1/api-keys/{key_id}").status_code == 204
        assert browser.get("/v1/jobs").status_code == 401
    assert service.client.post("/v1/session", json={"key": key}).status_code == 401
    with service.services.database.transaction() as repository:
        fresh, _ = repository.add_api_key("short", ["jobs:read"])
        over_at_once, _ = repository.open_session(fresh.id, -1)
        assert repository.find_session(over_at_once) is None
        assert repository.remove_expired_sessions() == 1


@pytest.mark.parametrize("key", ["", "bm_0_0", "x" * 300])
def test_a_wrong_key_opens_nothing(bearer: tuple[Service, str, str], key: str):
    service, _, _ = bearer
    answer = service.client.post("/v1/session", json={"key": key})
    assert answer.status_code in {401, 422}
    assert "set-cookie" not in answer.headers


def test_a_named_key_goes_before_the_session(bearer: tuple[Service, str, str]):
    """And needs no token: no page can make a browser send it."""
    service, _, key = bearer
    with service.services.database.transaction() as repository:
        _, other = repository.add_api_key("other", ["jobs:read", "jobs:write"])
    with sign_in(service, key) as (browser, _):
        named = {"Authorization": f"Bearer {other}"}
        assert browser.post("/v1/jobs", json=job_request(), headers=named).status_code == 202
        assert browser.get("/v1/session", headers=named).json()["by"] == "key"
        assert browser.get("/v1/jobs").json()["data"] == []
