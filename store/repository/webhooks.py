"""Webhooks, and the outbox of their deliveries: filled from the events, emptied by whichever worker comes first.

A webhook's place in the stream of events moves in the transaction that stores its deliveries, so no event is missed
and none is stored twice, whoever dies when. Sending is at least once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, delete, func, insert, select, tuple_, update

from store.errors import NotFoundError
from store.ids import IdPrefix, new_id
from store.jobs import Cursor, EventKind, Job, StreamedEvent, StreamPage, StreamPlace, model_name
from store.kept import NoticeKind
from store.repository.base import owned
from store.repository.clock import database_time
from store.repository.notices import fresh_delivery, live_webhook
from store.repository.rows import error_to_document, job_from_row
from store.repository.stream import StreamPart
from store.tables import jobs, webhook_deliveries, webhooks
from store.webhooks import TEST_TYPE, Delivery, DeliveryState, NewWebhook, Parcel, Webhook, WebhookKind, event_type

if TYPE_CHECKING:
    from sqlalchemy import Row

PAGE = 200


class WebhookPart(StreamPart):
    """The part of the repository that webhooks use."""

    def add_webhook(self, new: NewWebhook) -> Webhook:
        """Stores a webhook that tells of everything from now on."""
        values = {
            "id": new_id(IdPrefix.WEBHOOK),
            "owner_key_id": new.owner_key_id,
            "all_owners": new.all_owners,
            "name": new.name,
            "url": new.url,
            **_kind_columns(new.kinds),
            "secret_sealed": new.secret_sealed,
            "enabled": True,
            "disabled_reason": "",
            "created_at": database_time(),
            **_place_columns(self.stream_end()),
        }
        return _webhook(self._connection.execute(insert(webhooks).values(values).returning(*webhooks.c)).one())

    def get_webhook(self, webhook_id: str, owner: str | None = None) -> Webhook:
        """Raises NotFoundError also where it is another owner's."""
        return _webhook(self._webhook_row(webhook_id, owner))

    def list_webhooks(self, owner: str | None = None) -> tuple[Webhook, ...]:
        """Returns the newest first."""
        statement = owned(select(webhooks), webhooks, owner)
        newest = statement.order_by(webhooks.c.created_at.desc(), webhooks.c.id.desc())
        return tuple(_webhook(row) for row in self._connection.execute(newest))

    def change_webhook(self, webhook_id: str, changes: Mapping[str, Any], owner: str | None = None) -> Webhook:
        """Sets some of name, url, kinds, enabled and secret_sealed; raises NotFoundError.

        One that is enabled again tells of what happens from now on, not of what happened meanwhile.
        """
        row = self._webhook_row(webhook_id, owner)
        values = dict(changes)
        if "kinds" in values:
            values |= _kind_columns(values["kinds"])
        if "enabled" in values:
            values["disabled_reason"] = ""
            if values["enabled"] and not row.enabled:
                values |= _place_columns(self.stream_end())
        if not values:
            return _webhook(row)
        statement = update(webhooks).where(webhooks.c.id == webhook_id).values(values).returning(*webhooks.c)
        return _webhook(self._connection.execute(statement).one())

    def delete_webhook(self, webhook_id: str, owner: str | None = None) -> None:
        """Removes a webhook and its deliveries; raises NotFoundError."""
        self._webhook_row(webhook_id, owner)
        self._connection.execute(delete(webhooks).where(webhooks.c.id == webhook_id))

    def disable_webhook(self, webhook_id: str, reason: str) -> None:
        """Stops a webhook whose receiver does not want it any more."""
        values = {"enabled": False, "disabled_reason": reason}
        self._connection.execute(update(webhooks).where(webhooks.c.id == webhook_id).values(values))

    def settle_webhooks(self) -> None:
        """Lets every webhook tell of what happens from now on: places of another database mean nothing here."""
        self._connection.execute(update(webhooks).values(_place_columns(self.stream_end())))

    def fill_outbox(self) -> int:
        """Stores a delivery for every event that a webhook wants and has not got; returns how many.

        Webhooks that another transaction is filling are left to it.
        """
        statement = select(webhooks).where(live_webhook()).order_by(webhooks.c.id).with_for_update(skip_locked=True)
        return sum(self._fill(row) for row in self._connection.execute(statement).all())

    def _fill(self, row: Row[Any]) -> int:
        place = StreamPlace(position=row.place_position, job_id=row.place_job_id, seq=row.place_seq)
        page = self._page_for(row, place)
        if page.events:
            about = self._jobs({read.event.job_id for read in page.events})
            rows = [_new_delivery(row.id, read, about[read.event.job_id]) for read in page.events]
            self._connection.execute(self._insert(webhook_deliveries).values(rows).on_conflict_do_nothing())
        if page.place != place:
            statement = update(webhooks).where(webhooks.c.id == row.id).values(_place_columns(page.place))
            self._connection.execute(statement)
        return len(page.events)

    def _page_for(self, row: Row[Any], place: StreamPlace) -> StreamPage:
        if not row.kinds:
            # It wants notices alone; the stream would take no kinds for all of them.
            return StreamPage(events=(), place=max(place, self.stream_end()))
        return self.read_stream(place, PAGE, owner=None if row.all_owners else row.owner_key_id, kinds=row.kinds)

    def _jobs(self, job_ids: Collection[str]) -> Mapping[str, Job]:
        rows = self._connection.execute(select(jobs).where(jobs.c.id.in_(job_ids)))
        return {row.id: job_from_row(row) for row in rows}

    def add_test_delivery(self, webhook_id: str, owner: str | None = None) -> Delivery:
        """Stores a message that tells of nothing, to try a receiver with; raises NotFoundError."""
        self._webhook_row(webhook_id, owner)
        values = {
            **fresh_delivery(webhook_id, {"type": TEST_TYPE, "data": {"webhook_id": webhook_id}}),
            "job_id": None,
            "seq": None,
        }
        statement = insert(webhook_deliveries).values(values).returning(*webhook_deliveries.c)
        return _delivery(self._connection.execute(statement).one())

    def take_parcels(self, limit: int, lease_seconds: float) -> tuple[Parcel, ...]:
        """Takes deliveries whose time has come; unless their outcome is told, they come again after the lease."""
        due = (
            select(webhook_deliveries.c.id)
            .join(webhooks, webhooks.c.id == webhook_deliveries.c.webhook_id)
            .where(webhook_deliveries.c.state == DeliveryState.PENDING, live_webhook())
            .where(webhook_deliveries.c.next_attempt_at <= database_time())
            .order_by(webhook_deliveries.c.next_attempt_at, webhook_deliveries.c.id)
            .limit(limit)
            .with_for_update(of=webhook_deliveries, skip_locked=True)
        )
        taken = (
            update(webhook_deliveries)
            .where(webhook_deliveries.c.id.in_(due))
            .values(
                attempts=webhook_deliveries.c.attempts + 1,
                last_attempt_at=database_time(),
                next_attempt_at=database_time(lease_seconds),
            )
            .returning(*webhook_deliveries.c)
        )
        rows = self._connection.execute(taken).all()
        hooks = {hook.id: hook for hook in self.list_webhooks()} if rows else {}
        return tuple(
            Parcel(delivery=_delivery(row), url=hook.url, secret_sealed=hook.secret_sealed)
            for row in rows
            for hook in (hooks[row.webhook_id],)
        )

    def record_attempt(
        self, delivery: Delivery, *, status_code: int | None, error: str | None, retry_seconds: float | None
    ) -> None:
        """Tells how an attempt went; error None: delivered. retry_seconds None: there is no further one.

        Nothing changes where the delivery was taken again meanwhile.
        """
        over = DeliveryState.DELIVERED if error is None else DeliveryState.FAILED
        again = error is not None and retry_seconds is not None
        values = {
            "state": DeliveryState.PENDING if again else over,
            "status_code": status_code,
            "error": error,
            "next_attempt_at": database_time(retry_seconds or 0.0) if again else None,
        }
        mine = and_(webhook_deliveries.c.id == delivery.id, webhook_deliveries.c.attempts == delivery.attempts)
        statement = update(webhook_deliveries).where(mine, webhook_deliveries.c.state == DeliveryState.PENDING)
        self._connection.execute(statement.values(values))

    def list_deliveries(
        self, webhook_id: str, page_size: int, after: Cursor | None = None, *, owner: str | None = None
    ) -> tuple[Delivery, ...]:
        """Returns up to page_size deliveries of a webhook behind a place, newest first; raises NotFoundError."""
        self._webhook_row(webhook_id, owner)
        key = (webhook_deliveries.c.created_at, webhook_deliveries.c.id)
        statement = select(webhook_deliveries).where(webhook_deliveries.c.webhook_id == webhook_id)
        if after is not None:
            place = tuple_(after.created_at, after.id, types=[column.type for column in key])
            statement = statement.where(tuple_(*key) < place)
        newest = statement.order_by(*(column.desc() for column in key)).limit(page_size)
        return tuple(_delivery(row) for row in self._connection.execute(newest))

    def replay_delivery(self, webhook_id: str, delivery_id: str, owner: str | None = None) -> Delivery:
        """Sends a delivery again from its first attempt, under the id that it had; raises NotFoundError."""
        self._webhook_row(webhook_id, owner)
        mine = and_(webhook_deliveries.c.id == delivery_id, webhook_deliveries.c.webhook_id == webhook_id)
        values = {"state": DeliveryState.PENDING, "attempts": 0, "next_attempt_at": database_time()}
        statement = update(webhook_deliveries).where(mine).values(values).returning(*webhook_deliveries.c)
        row = self._connection.execute(statement).one_or_none()
        if row is None:
            raise NotFoundError("delivery", delivery_id)
        return _delivery(row)

    def remove_old_deliveries(self, older_than_seconds: float) -> int:
        """Removes deliveries that are over and that old; returns how many."""
        over = and_(
            webhook_deliveries.c.state != DeliveryState.PENDING,
            webhook_deliveries.c.created_at < database_time(-older_than_seconds),
        )
        removed = delete(webhook_deliveries).where(over).returning(webhook_deliveries.c.id)
        return len(self._connection.execute(removed).all())

    def delivery_counts(self) -> dict[DeliveryState, int]:
        """Returns {state: number of deliveries}, zeros included."""
        statement = select(webhook_deliveries.c.state, func.count()).group_by(webhook_deliveries.c.state)
        found = {DeliveryState(state): count for state, count in self._connection.execute(statement)}
        return {state: found.get(state, 0) for state in DeliveryState}

    def _webhook_row(self, webhook_id: str, owner: str | None) -> Row[Any]:
        statement = owned(select(webhooks).where(webhooks.c.id == webhook_id), webhooks, owner)
        row = self._connection.execute(statement).one_or_none()
        if row is None:
            raise NotFoundError("webhook", webhook_id)
        return row


def _place_columns(place: StreamPlace) -> dict[str, Any]:
    return {"place_position": place.position, "place_job_id": place.job_id, "place_seq": place.seq}


def _kind_columns(kinds: Collection[WebhookKind]) -> dict[str, list[str]]:
    return {
        "kinds": [kind for kind in kinds if isinstance(kind, EventKind)],
        "notices": [kind for kind in kinds if isinstance(kind, NoticeKind)],
    }


def _new_delivery(webhook_id: str, read: StreamedEvent, job: Job) -> dict[str, Any]:
    event = read.event
    data = {
        "job_id": job.id,
        "seq": event.seq,
        "attempt": event.attempt,
        "state": event.payload.get("state"),
        "model": model_name(job.spec),
        "method": job.spec["quantization"]["method"],
        "labels": dict(job.labels),
        "error": error_to_document(job.error) if event.kind == EventKind.FAILED else None,
        "payload": dict(event.payload),
        "job": f"/v1/jobs/{job.id}",
    }
    body = {"type": event_type(event.kind), "timestamp": event.at.isoformat(), "data": data}
    return {**fresh_delivery(webhook_id, body), "job_id": job.id, "seq": event.seq}


def _webhook(row: Row[Any]) -> Webhook:
    return Webhook(
        id=row.id,
        owner_key_id=row.owner_key_id,
        all_owners=row.all_owners,
        name=row.name,
        url=row.url,
        kinds=(*map(EventKind, row.kinds), *map(NoticeKind, row.notices)),
        secret_sealed=row.secret_sealed,
        enabled=row.enabled,
        disabled_reason=row.disabled_reason,
        created_at=row.created_at,
    )


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        id=row.id,
        webhook_id=row.webhook_id,
        job_id=row.job_id,
        body=row.body,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        status_code=row.status_code,
        error=row.error,
        created_at=row.created_at,
        last_attempt_at=row.last_attempt_at,
        next_attempt_at=row.next_attempt_at,
    )
