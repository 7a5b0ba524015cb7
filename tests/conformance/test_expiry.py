"""The warning before a text or an uploaded model goes: once, in time, told to webhooks, taken back by a change."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from store.errors import NotFoundError
from store.jobs import CalibrationSet, EventKind, NewCalibrationSet
from store.kept import KeptKind, NoticeKind
from store.models import UploadedModel
from store.session import Database
from store.webhooks import Delivery, NewWebhook, WebhookKind
from tests.conformance.samples import submit
from tests.conformance.test_models import new_model

DAY = 86_400.0
SOON = datetime.now(UTC) + timedelta(hours=1)
LATER = datetime.now(UTC) + timedelta(days=30)
PAST = datetime.now(UTC) - timedelta(days=30)
KINDS = pytest.mark.parametrize("kind", list(KeptKind))

Kept = CalibrationSet | UploadedModel


def add(database: Database, kind: KeptKind, owner: str = "key_a") -> Kept:
    """Stores a text or a model."""
    with database.transaction() as repository:
        if kind is KeptKind.UPLOADED_MODEL:
            return repository.add_uploaded_model(new_model(owner))
        text = NewCalibrationSet(
            owner_key_id=owner, name="tiny", format="text", sha256="1" * 64, size_bytes=110, documents=1
        )
        return repository.add_calibration_set(text)


def read(database: Database, kind: KeptKind, row_id: str) -> Kept:
    with database.reading() as repository:
        if kind is KeptKind.UPLOADED_MODEL:
            return repository.get_uploaded_model(row_id)
        return repository.get_calibration_set(row_id)


def keep(database: Database, kind: KeptKind, row_id: str, changes: Mapping[str, Any]) -> Kept:
    with database.transaction() as repository:
        if kind is KeptKind.UPLOADED_MODEL:
            return repository.keep_uploaded_model(row_id, changes, "key_a")
        return repository.keep_calibration_set(row_id, changes, "key_a")


def warn(database: Database, kind: KeptKind, notice_seconds: float = DAY) -> tuple[str, ...]:
    with database.transaction() as repository:
        return repository.warn_of_kept(kind, notice_seconds)


def expire(database: Database, kind: KeptKind) -> tuple[str, ...]:
    with database.transaction() as repository:
        return repository.expire_kept(kind)


def listen(database: Database, *kinds: WebhookKind, owner: str = "key_a", all_owners: bool = False) -> str:
    """Stores a webhook and returns its id."""
    new = NewWebhook(
        owner_key_id=owner,
        all_owners=all_owners,
        name="",
        url="https://hooks.example/",
        kinds=kinds,
        secret_sealed="sealed",  # noqa: S106 - not a secret
    )
    with database.transaction() as repository:
        return repository.add_webhook(new).id


def told(database: Database, webhook_id: str) -> list[Delivery]:
    """Returns what a webhook is told, oldest first, after the outbox was filled from the events, too."""
    with database.transaction() as repository:
        repository.fill_outbox()
    with database.reading() as repository:
        return list(reversed(repository.list_deliveries(webhook_id, 100)))


@KINDS
def test_a_warning_comes_once_and_before_the_end(database: Database, kind: KeptKind) -> None:
    """Within the notice, not sooner; nothing that was not warned of goes."""
    kept = add(database, kind)
    assert kept.expiry_warned_at is None
    assert (warn(database, kind), expire(database, kind)) == ((), ())
    keep(database, kind, kept.id, {"expires_at": LATER})
    assert warn(database, kind) == ()
    keep(database, kind, kept.id, {"expires_at": SOON})
    assert warn(database, kind) == (kept.id,)
    assert warn(database, kind) == ()
    warned = read(database, kind, kept.id)
    assert warned.expiry_warned_at is not None
    assert warned.expires_at == SOON
    assert expire(database, kind) == ()


@KINDS
@pytest.mark.parametrize(
    "changes", [{"pinned": True}, {"expires_at": LATER}, {"expires_at": None}], ids=["a pin", "later", "never"]
)
def test_a_pin_or_another_time_takes_the_warning_back(
    database: Database, kind: KeptKind, changes: Mapping[str, Any]
) -> None:
    """It is then warned of anew; an empty change is none."""
    kept = add(database, kind)
    keep(database, kind, kept.id, {"expires_at": SOON})
    warn(database, kind)
    assert keep(database, kind, kept.id, {}).expiry_warned_at is not None
    assert keep(database, kind, kept.id, changes).expiry_warned_at is None
    assert (warn(database, kind), expire(database, kind)) == ((), ())
    keep(database, kind, kept.id, {"pinned": False, "expires_at": SOON})
    assert warn(database, kind) == (kept.id,)


@KINDS
def test_a_late_warning_gives_the_whole_notice(database: Database, kind: KeptKind) -> None:
    """A pin that is taken off behind the time, a rule that is new: the time moves, and then it holds."""
    kept = add(database, kind)
    keep(database, kind, kept.id, {"pinned": True, "expires_at": PAST})
    assert warn(database, kind) == ()
    keep(database, kind, kept.id, {"pinned": False})
    assert expire(database, kind) == ()
    assert warn(database, kind) == (kept.id,)
    moved = read(database, kind, kept.id)
    assert moved.expires_at is not None
    assert moved.expiry_warned_at is not None
    assert moved.expires_at - moved.expiry_warned_at == timedelta(days=1)
    assert expire(database, kind) == ()
    keep(database, kind, kept.id, {"expires_at": PAST})
    assert warn(database, kind, 0) == (kept.id,)
    assert expire(database, kind) == (kept.id,)


@KINDS
def test_a_rule_gives_a_time_that_is_never_sooner_than_the_notice(database: Database, kind: KeptKind) -> None:
    """Counted from the upload; one that has a time or a pin keeps it."""
    kept = add(database, kind)
    with database.transaction() as repository:
        assert repository.date_kept(kind, 7 * DAY, DAY) == 1
        assert repository.date_kept(kind, 9 * DAY, DAY) == 0
    assert read(database, kind, kept.id).expires_at == kept.created_at + timedelta(days=7)
    keep(database, kind, kept.id, {"expires_at": None, "pinned": True})
    with database.transaction() as repository:
        assert repository.date_kept(kind, 7 * DAY, DAY) == 0
    keep(database, kind, kept.id, {"pinned": False})
    with database.transaction() as repository:
        assert repository.date_kept(kind, 0.001, DAY) == 1
    dated = read(database, kind, kept.id).expires_at
    assert dated is not None
    assert dated > datetime.now(UTC) + timedelta(hours=12)


def _warn_and_break_off(database: Database, kind: KeptKind) -> None:
    with database.transaction() as repository:
        assert len(repository.warn_of_kept(kind, DAY)) == 1
        repository.get_job("job_0")


@KINDS
def test_webhooks_are_told_before_and_after(database: Database, kind: KeptKind) -> None:
    """Its owner's and an admin's, of what each asked for; one whose sweep is undone is not told."""
    before, after = NoticeKind(f"{kind}.expiring"), NoticeKind(f"{kind}.expired")
    mine = listen(database, before, after)
    admin = listen(database, after, EventKind.SUBMITTED, owner="key_root", all_owners=True)
    strangers = [listen(database, before, after, owner="key_b"), listen(database, EventKind.SUBMITTED)]
    kept = add(database, kind)
    keep(database, kind, kept.id, {"expires_at": SOON})
    with pytest.raises(NotFoundError):
        _warn_and_break_off(database, kind)
    assert told(database, mine) == []
    warn(database, kind)
    [warning] = told(database, mine)
    assert warning.body["type"] == before
    assert warning.body["data"] == {
        f"{kind}_id": kept.id,
        "name": "tiny",
        "size_bytes": 110,
        "expires_at": SOON.isoformat(),
        kind: f"/v1/{kind.replace('_', '-')}s/{kept.id}",
    }
    keep(database, kind, kept.id, {"expires_at": PAST})
    warn(database, kind, 0)
    expire(database, kind)
    assert [one.body["type"] for one in told(database, mine)] == [before, before, after]
    job = submit(database, "key_b")
    assert {(one.body["type"], one.job_id) for one in told(database, admin)} == {
        (after, None),
        ("job.submitted", job.id),
    }
    assert [told(database, one) for one in strangers] == [[], []]


@KINDS
def test_a_webhook_for_notices_alone_hears_of_no_job(database: Database, kind: KeptKind) -> None:
    """Also not of those that were submitted before it wanted to hear of jobs."""
    hook = listen(database, NoticeKind(f"{kind}.expiring"))
    submit(database)
    assert told(database, hook) == []
    with database.transaction() as repository:
        changed = repository.change_webhook(hook, {"kinds": (EventKind.SUBMITTED,)})
        assert changed.kinds == (EventKind.SUBMITTED,)
    job = submit(database)
    assert [one.job_id for one in told(database, hook)] == [job.id]
    keep(database, kind, add(database, kind).id, {"expires_at": SOON})
    warn(database, kind)
    assert [one.job_id for one in told(database, hook)] == [job.id]
