"""When what is kept goes: the rules for everything that has pinned, expires_at and expiry_warned_at.

Nothing goes before its owner was warned of it, and a warning is for one time and one pin: a change of either takes it
back. Where the warning itself comes late, since no worker ran or a pin was taken off, the time moves behind the notice.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, and_

from store.repository.clock import database_time

if TYPE_CHECKING:
    from sqlalchemy import Table

BATCH = 100
"""How many rows one transaction dates, warns of or removes."""


def changed_term(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the columns behind a user's change of pinned and expires_at."""
    return {**changes, "expiry_warned_at": None} if changes else {}


def first_term(start: datetime, keep_seconds: float, now: datetime, notice_seconds: float) -> datetime:
    """Returns the time by the service's rule, never sooner than the notice: what is old already was never warned of."""
    return max(start + timedelta(seconds=keep_seconds), now + timedelta(seconds=notice_seconds))


def warned_term(expires_at: datetime, now: datetime, notice_seconds: float) -> dict[str, Any]:
    """Returns the columns of a row that is warned of now."""
    late = expires_at <= now
    return {
        "expiry_warned_at": now,
        "expires_at": now + timedelta(seconds=notice_seconds) if late else expires_at,
    }


def warning_due(table: Table, notice_seconds: float) -> ColumnElement[bool]:
    """Rows that go within the notice, or should be gone, and were not warned of."""
    return and_(
        table.c.expires_at <= database_time(notice_seconds), table.c.expiry_warned_at.is_(None), ~table.c.pinned
    )


def end_due(table: Table) -> ColumnElement[bool]:
    """Rows whose time has come after a warning."""
    return and_(table.c.expires_at <= database_time(), table.c.expiry_warned_at.is_not(None), ~table.c.pinned)
