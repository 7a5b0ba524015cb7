"""Lets go of texts and models whose time has come: dated, warned of, removed, and told to webhooks."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import exists, select, update

from store.jobs import TERMINAL_STATES
from store.kept import KeptKind, NoticeKind
from store.repository.kept import Kept, KeptPart
from store.repository.models import MODELS
from store.repository.notices import NoticePart
from store.repository.retention import TEXTS
from store.repository.terms import BATCH, end_due, first_term, warned_term, warning_due
from store.tables import jobs

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Row

KEPT = {kept.kind: kept for kept in (TEXTS, MODELS)}


class ExpiryPart(KeptPart, NoticePart):
    """The part of the repository that gives texts and models their time."""

    def date_kept(self, kind: KeptKind, keep_seconds: float, notice_seconds: float) -> int:
        """Gives what has no time yet its time, counted from its upload, never sooner than the notice; how many."""
        table = KEPT[kind].table
        now = self._now()
        rows = self._rows_where(KEPT[kind], table.c.expires_at.is_(None) & ~table.c.pinned)
        for row in rows:
            expires_at = first_term(row.created_at, keep_seconds, now, notice_seconds)
            self._connection.execute(update(table).where(table.c.id == row.id).values(expires_at=expires_at))
        return len(rows)

    def warn_of_kept(self, kind: KeptKind, notice_seconds: float) -> tuple[str, ...]:
        """Marks what goes within the notice, once, and tells webhooks; returns the ids."""
        table = KEPT[kind].table
        now = self._now()
        rows = self._rows_where(KEPT[kind], warning_due(table, notice_seconds))
        for row in rows:
            term = warned_term(row.expires_at, now, notice_seconds)
            self._connection.execute(update(table).where(table.c.id == row.id).values(term))
            self._tell_of(KEPT[kind], "expiring", row, now, term["expires_at"])
        return tuple(row.id for row in rows)

    def expire_kept(self, kind: KeptKind) -> tuple[str, ...]:
        """Removes what was warned of, is due and no unfinished job needs, and tells webhooks; returns the ids."""
        kept = KEPT[kind]
        now = self._now()
        free = ~exists().where(kept.used_by == kept.table.c.id, jobs.c.state.not_in(TERMINAL_STATES))
        rows = self._rows_where(kept, end_due(kept.table) & free)
        for row in rows:
            self._delete_kept(kept, row.id)
            self._tell_of(kept, "expired", row, now, row.expires_at)
        return tuple(row.id for row in rows)

    def _rows_where(self, kept: Kept, condition: ColumnElement[bool]) -> list[Row[Any]]:
        statement = select(kept.table).where(condition, ~kept.lasting).limit(BATCH).with_for_update(skip_locked=True)
        return list(self._connection.execute(statement).all())

    def _tell_of(self, kept: Kept, what: str, row: Row[Any], now: datetime, expires_at: datetime) -> None:
        data = {
            f"{kept.kind}_id": row.id,
            "name": row.name,
            "size_bytes": row.size_bytes,
            "expires_at": expires_at.isoformat(),
            kept.kind: f"{kept.path}/{row.id}",
        }
        self._notify(NoticeKind(f"{kept.kind}.{what}"), row.owner_key_id, now, data)
