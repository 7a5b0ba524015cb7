"""The outbox: each event told once or more, signed, retried by the book, and never lost with a worker."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import replace
from itertools import pairwise

import pytest

from store.jobs import EventKind
from store.vault import Vault
from store.webhooks import RETRY_SECONDS, Delivery, DeliveryState, NewWebhook, Webhook
from tests.worker.bench import OWNER, Bench
from tests.worker.receiver import Message, receiver
from worker.messenger import Messenger

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
TERMINAL = (EventKind.SUCCEEDED, EventKind.FAILED, EventKind.CANCELLED)


@pytest.fixture
def open_bench(bench: Bench) -> Bench:
    """A bench whose worker may send to this machine."""
    settings = bench.services.settings.model_copy(update={"webhooks_to_private": True})
    return Bench(replace(bench.services, settings=settings), bench.tiny_model)


def add_webhook(bench: Bench, url: str, *, owner: str = OWNER, all_owners: bool = False) -> Webhook:
    sealed = Vault.from_settings(bench.services.settings).seal(SECRET)
    new = NewWebhook(owner_key_id=owner, all_owners=all_owners, name="", url=url, kinds=TERMINAL, secret_sealed=sealed)
    with bench.services.database.transaction() as repository:
        return repository.add_webhook(new)


def deliveries(bench: Bench, webhook: Webhook) -> tuple[Delivery, ...]:
    with bench.services.database.reading() as repository:
        return repository.list_deliveries(webhook.id, 100)


def make_due(bench: Bench, webhook: Webhook) -> None:
    """Lets the time until the next attempt pass."""
    for delivery in deliveries(bench, webhook):
        if delivery.state is DeliveryState.PENDING:
            with bench.services.database.transaction() as repository:
                repository.record_attempt(delivery, status_code=None, error="waited", retry_seconds=-1)


def verified(message: Message) -> bool:
    """Checks a message as a receiver does, from the specification alone."""
    headers = message.headers
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + message.body
    expected = base64.b64encode(hmac.digest(b"s" * 32, signed, hashlib.sha256)).decode()
    return headers["webhook-signature"] == f"v1,{expected}"


def test_an_event_is_told_once_signed_and_to_its_owner_only(open_bench: Bench):
    """With what happened to which job; other kinds and other owners' events stay untold; nothing comes twice."""
    messenger = Messenger(open_bench.services)
    with receiver() as mine, receiver() as theirs, receiver() as operator:
        hook = add_webhook(open_bench, mine.url)
        add_webhook(open_bench, theirs.url, owner="key_other")
        add_webhook(open_bench, operator.url, owner="local", all_owners=True)
        job = open_bench.submit()
        open_bench.work()
        assert messenger.round() == 2
        assert messenger.round() == 0
        [message] = mine.messages
        assert len(operator.messages) == 1
        assert theirs.messages == []
        assert verified(message)
        assert message.json["type"] == "job.succeeded"
        assert message.json["data"]["job_id"] == job.id
        assert message.json["data"]["state"] == "succeeded"
    [delivery] = deliveries(open_bench, hook)
    assert (delivery.state, delivery.status_code, delivery.attempts) == (DeliveryState.DELIVERED, 204, 1)
    assert message.headers["webhook-id"] == delivery.id


def test_what_happened_before_a_webhook_is_not_told(open_bench: Bench):
    open_bench.submit()
    open_bench.work()
    with receiver() as server:
        add_webhook(open_bench, server.url)
        assert Messenger(open_bench.services).round() == 0


@pytest.mark.parametrize("status", [500, 302, 404])
def test_a_failed_attempt_comes_again_with_the_same_id(open_bench: Bench, status: int):
    """A redirect is a failure too; the wait grows as written; a 2xx ends it."""
    messenger = Messenger(open_bench.services)
    with receiver(status, status, 200) as server:
        hook = add_webhook(open_bench, server.url)
        open_bench.submit()
        open_bench.work()
        for attempt in (1, 2, 3):
            assert messenger.round() == 1
            assert messenger.round() == 0
            [delivery] = deliveries(open_bench, hook)
            assert delivery.attempts == attempt
            if attempt < 3:
                assert (delivery.state, delivery.status_code) == (DeliveryState.PENDING, status)
                assert delivery.next_attempt_at is not None
                assert delivery.last_attempt_at is not None
                wait = (delivery.next_attempt_at - delivery.last_attempt_at).total_seconds()
                assert RETRY_SECONDS[attempt - 1] <= wait < 1.2 * RETRY_SECONDS[attempt - 1] + 5
                make_due(open_bench, hook)
        assert delivery.state is DeliveryState.DELIVERED
        assert {message.headers["webhook-id"] for message in server.messages} == {delivery.id}
        assert all(map(verified, server.messages))


def test_a_delivery_fails_after_its_last_attempt_and_can_be_replayed(open_bench: Bench):
    """Ten attempts over three days; then nothing, until somebody asks for it."""
    assert all(first < second for first, second in pairwise(RETRY_SECONDS))
    assert (RETRY_SECONDS[0], RETRY_SECONDS[-1]) == (5, 86_400)
    messenger = Messenger(open_bench.services)
    with receiver(503) as server:
        hook = add_webhook(open_bench, server.url)
        open_bench.submit()
        open_bench.work()
        for _ in range(len(RETRY_SECONDS) + 1):
            assert messenger.round() == 1
            make_due(open_bench, hook)
        assert messenger.round() == 0
        [delivery] = deliveries(open_bench, hook)
        assert (delivery.state, delivery.next_attempt_at) == (DeliveryState.FAILED, None)
        server.answers = [200]
        with open_bench.services.database.transaction() as repository:
            repository.replay_delivery(hook.id, delivery.id, OWNER)
        assert messenger.round() == 1
    [again] = deliveries(open_bench, hook)
    assert (again.id, again.state) == (delivery.id, DeliveryState.DELIVERED)


def test_410_ends_the_webhook(open_bench: Bench):
    """The receiver is not asked again, and the page says why; enabled again, it hears of what comes then."""
    messenger = Messenger(open_bench.services)
    with receiver(410) as server:
        hook = add_webhook(open_bench, server.url)
        for _ in range(2):
            open_bench.submit()
            open_bench.work()
            messenger.round()
        assert len(server.messages) == 1
        with open_bench.services.database.transaction() as repository:
            disabled = repository.get_webhook(hook.id)
            assert not disabled.enabled
            assert "410" in disabled.disabled_reason
            assert repository.change_webhook(hook.id, {"enabled": True}).disabled_reason == ""
        server.answers = [200]
        assert messenger.round() == 0
        open_bench.submit()
        open_bench.work()
        assert messenger.round() == 1


def test_an_attempt_whose_worker_died_comes_again(open_bench: Bench):
    """It was taken and never told of; after the lease another worker sends it. At least once, not exactly once."""
    with receiver() as server:
        hook = add_webhook(open_bench, server.url)
        open_bench.submit()
        open_bench.work()
        with open_bench.services.database.transaction() as repository:
            assert repository.fill_outbox() == 1
            [lost] = repository.take_parcels(10, lease_seconds=-1)
        assert Messenger(open_bench.services).round() == 1
        [delivery] = deliveries(open_bench, hook)
        assert (delivery.id, delivery.attempts, delivery.state) == (lost.delivery.id, 2, DeliveryState.DELIVERED)
        with open_bench.services.database.transaction() as repository:
            repository.record_attempt(lost.delivery, status_code=500, error="late", retry_seconds=None)
        assert deliveries(open_bench, hook) == (delivery,)


def test_a_secret_of_another_service_sends_nothing(open_bench: Bench):
    """The attempt says what is wrong instead of sending what nobody can verify."""
    with receiver() as server:
        hook = add_webhook(open_bench, server.url)
        with open_bench.services.database.transaction() as repository:
            repository.change_webhook(hook.id, {"secret_sealed": Vault(b"another").seal(SECRET)})
            repository.add_test_delivery(hook.id)
        assert Messenger(open_bench.services).round() == 1
        assert server.messages == []
    [delivery] = deliveries(open_bench, hook)
    assert "BITMILL_SECRET_KEY" in str(delivery.error)


def test_a_revoked_key_tells_nobody_any_more(open_bench: Bench):
    with receiver() as server:
        with open_bench.services.database.transaction() as repository:
            key, _ = repository.add_api_key("short", ["admin"])
        add_webhook(open_bench, server.url, owner=key.id, all_owners=True)
        open_bench.submit()
        open_bench.work()
        with open_bench.services.database.transaction() as repository:
            repository.revoke_api_key(key.id)
        assert Messenger(open_bench.services).round() == 0
