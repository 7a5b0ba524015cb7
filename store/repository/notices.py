"""Puts into the outbox of webhooks what no job's history tells of, in the transaction in which it happens."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, insert, or_, select

from store.ids import IdPrefix, new_id
from store.kept import NoticeKind
from store.repository.base import RepositoryBase
from store.repository.clock import database_time
from store.tables import api_keys, webhook_deliveries, webhooks
from store.webhooks import DeliveryState


class NoticePart(RepositoryBase):
    """What the parts that tell webhooks of something have in common."""

    def _notify(self, kind: NoticeKind, owner: str, at: datetime, data: Mapping[str, Any]) -> None:
        """Stores a delivery for every webhook that wants such a notice about an owner's things."""
        listening = select(webhooks.c.id, webhooks.c.notices).where(
            live_webhook(), or_(webhooks.c.all_owners, webhooks.c.owner_key_id == owner)
        )
        body = {"type": kind, "timestamp": at.isoformat(), "data": dict(data)}
        rows = [
            {**fresh_delivery(hook.id, body), "job_id": None, "seq": None}
            for hook in self._connection.execute(listening).all()
            if kind in hook.notices
        ]
        if rows:
            self._connection.execute(insert(webhook_deliveries).values(rows))


def live_webhook() -> ColumnElement[bool]:
    """Enabled, and of a key that is still good; the machine itself has no key."""
    over = or_(api_keys.c.revoked_at.is_not(None), api_keys.c.expires_at <= database_time())
    return and_(webhooks.c.enabled, ~exists().where(api_keys.c.id == webhooks.c.owner_key_id, over))


def fresh_delivery(webhook_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the columns of a delivery that is to be sent now."""
    return {
        "id": new_id(IdPrefix.DELIVERY),
        "webhook_id": webhook_id,
        "body": dict(body),
        "state": DeliveryState.PENDING,
        "attempts": 0,
        "created_at": database_time(),
        "next_attempt_at": database_time(),
    }
