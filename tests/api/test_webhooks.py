"""Webhooks over HTTP: made with a secret shown once, changed, tried, their deliveries read and replayed."""

from __future__ import annotations

from typing import get_args

import pytest

from api.schemas.webhooks import DEFAULT_EVENTS, EventType
from api.settings import ApiSettings
from store.jobs import EventKind
from store.kept import NoticeKind
from store.webhooks import event_type, kind_of
from tests.api.service import Service, serve

WANTED = ["job.submitted", "uploaded_model.expiring"]
URL = "https://hooks.example.com/bitmill?team=1"


def test_every_event_can_be_subscribed_to():
    kinds = {*EventKind, *NoticeKind}
    assert set(get_args(EventType)) == {event_type(kind) for kind in kinds}
    assert {kind_of(name) for name in get_args(EventType)} == kinds


def test_a_webhook_from_its_making_to_its_end(service_on_each: Service):
    """The secret is shown when it is made and when it is changed, and stored encrypted."""
    client = service_on_each.client
    made = client.post("/v1/webhooks", json={"url": URL})
    assert made.status_code == 201, made.text
    hook = made.json()
    path = made.headers["location"]
    assert hook["secret"].startswith("whsec_")
    assert (hook["events"], hook["enabled"], hook["all_owners"]) == (DEFAULT_EVENTS, True, True)
    assert "secret" not in client.get(path).json()
    with service_on_each.services.database.reading() as repository:
        sealed = repository.get_webhook(hook["id"]).secret_sealed
    assert hook["secret"] not in sealed
    assert service_on_each.services.vault.open(sealed) == hook["secret"]
    changed = client.patch(path, json={"enabled": False, "events": [*WANTED, *WANTED]}).json()
    assert (changed["enabled"], changed["events"], changed["url"]) == (False, WANTED, URL)
    rotated = client.post(f"{path}:rotate-secret").json()
    assert rotated["secret"] not in {hook["secret"], None}
    assert client.patch(path, json={}).json() == changed
    assert [one["id"] for one in client.get("/v1/webhooks").json()["data"]] == [hook["id"]]
    assert client.delete(path).status_code == 204
    for call in (client.get(path), client.delete(path), client.post(f"{path}:test"), client.get(f"{path}/deliveries")):
        assert call.status_code == 404


def test_deliveries_are_paged_and_replayed(service_on_each: Service):
    """A test message waits for a worker; a replay puts one back."""
    client = service_on_each.client
    path = client.post("/v1/webhooks", json={"url": URL}).headers["location"]
    sent = [client.post(f"{path}:test").json()["id"] for _ in range(3)]
    page = client.get(f"{path}/deliveries", params={"page_size": 2}).json()
    rest = client.get(f"{path}/deliveries", params={"page_size": 2, "page_token": page["next_page_token"]}).json()
    assert [one["id"] for one in page["data"] + rest["data"]] == list(reversed(sent))
    assert rest["next_page_token"] is None
    first = page["data"][0]
    assert (first["type"], first["state"], first["attempts"]) == ("webhook.test", "pending", 0)
    replayed = client.post(f"{path}/deliveries/{first['id']}:replay")
    assert (replayed.status_code, replayed.json()["state"]) == (202, "pending")
    assert client.post(f"{path}/deliveries/msg_0:replay").status_code == 404
    assert "bitmill_webhook_deliveries" in client.get("/metrics").text


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "ftp://hooks.example.com/",
        "https://",
        "https:///x",
        "https://user:pass@hooks.example.com/",
        "https://hooks.example.com/#x",
        "https://hooks.example.com:0/",
        "https://hooks.example.com:99999/",
        "https://[::1",
        "https://hooks.exämple.com/",
        "https://127.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://localhost/",
        "https://hooks example.com/",
    ],
)
def test_an_address_that_can_never_be_right_is_refused(service: Service, url: str):
    """With the field; names are looked at with every delivery."""
    made = service.client.post("/v1/webhooks", json={"url": url})
    assert made.status_code == 422, made.text
    assert made.json()["errors"][0]["pointer"] == "#/url"


def test_a_service_whose_workers_do_not_share_its_secret_makes_no_webhook(settings: ApiSettings):
    """Instead of one that could never be signed."""
    scaled = settings.model_copy(update={"broker_url": "redis://127.0.0.1:9/0"})
    with serve(scaled) as running:
        made = running.client.post("/v1/webhooks", json={"url": URL})
        assert (made.status_code, made.json()["code"]) == (409, "secret_key_required")
        assert "BITMILL_SECRET_KEY" in made.json()["hint"]
        assert running.client.get("/v1/webhooks").json()["data"] == []
