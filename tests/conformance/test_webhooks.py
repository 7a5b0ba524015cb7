"""The outbox of webhooks on SQLite and PostgreSQL alike: no event missed, none stored twice, whoever fills it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from store.errors import NotFoundError
from store.jobs import Cursor, EventKind
from store.session import Database
from store.webhooks import DeliveryState, NewWebhook
from tests.conformance.samples import submit


def new_webhook(owner: str = "key_a", *, all_owners: bool = False) -> NewWebhook:
    return NewWebhook(
        owner_key_id=owner,
        all_owners=all_owners,
        name="",
        url="https://hooks.example/",
        kinds=(EventKind.SUBMITTED,),
        secret_sealed="sealed",  # noqa: S106 - not a secret
    )


def _fill_and_take(database: Database) -> list[str]:
    with database.transaction() as repository:
        repository.fill_outbox()
    with database.transaction() as repository:
        return [parcel.delivery.id for parcel in repository.take_parcels(5, lease_seconds=60)]


def test_many_fillers_and_takers_give_each_event_out_once(database: Database) -> None:
    """While jobs are being submitted: in the end every one of them was taken by exactly one of the takers."""
    with database.transaction() as repository:
        hook = repository.add_webhook(new_webhook(all_owners=True))
    with ThreadPoolExecutor(6) as pool:
        submits = [pool.submit(submit, database, f"key_{number % 3}") for number in range(30)]
        rounds = [pool.submit(_fill_and_take, database) for _ in range(12)]
        wanted = {future.result().id for future in submits}
        taken = [identifier for future in rounds for identifier in future.result()]
    while more := _fill_and_take(database):
        taken += more
    assert len(taken) == len(set(taken)) == len(wanted)
    with database.reading() as repository:
        told = repository.list_deliveries(hook.id, 100)
        assert {delivery.job_id for delivery in told} == wanted
        assert repository.delivery_counts()[DeliveryState.PENDING] == len(wanted)


def test_owners_are_apart_and_what_is_over_is_removed(database: Database) -> None:
    """Pages go by key; another owner's webhook is not there."""
    with database.transaction() as repository:
        hook = repository.add_webhook(new_webhook())
        repository.add_webhook(new_webhook("key_b"))
    jobs = [submit(database).id for _ in range(3)]
    _fill_and_take(database)
    with database.transaction() as repository:
        assert [one.id for one in repository.list_webhooks("key_a")] == [hook.id]
        first = repository.list_deliveries(hook.id, 2, owner="key_a")
        place = Cursor(created_at=first[-1].created_at, id=first[-1].id)
        second = repository.list_deliveries(hook.id, 2, place, owner="key_a")
        assert sorted(str(one.job_id) for one in first + second) == sorted(jobs)
        for wrong in ("key_b", "key_c"):
            with pytest.raises(NotFoundError):
                repository.list_deliveries(hook.id, 2, owner=wrong)
            with pytest.raises(NotFoundError):
                repository.replay_delivery(hook.id, first[0].id, wrong)
        repository.record_attempt(first[0], status_code=200, error=None, retry_seconds=None)
        assert repository.remove_old_deliveries(3600) == 0
        assert repository.remove_old_deliveries(-3600) == 1
        repository.delete_webhook(hook.id, "key_a")
        assert sum(repository.delivery_counts().values()) == 0
