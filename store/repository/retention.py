"""What is kept for how long: hub tokens of owners, pins, and the times at which files and texts go.

Nothing goes without a word: a job's history tells of it before and after. The bytes go with the sweep of blobs.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, delete, exists, select

from store.jobs import CalibrationSet, EventKind, Job, JobState
from store.repository.base import Guard
from store.repository.clock import database_time
from store.repository.kept import BATCH, Kept, KeptPart
from store.repository.rows import calibration_set_from_row, job_from_row
from store.tables import artifacts, calibration_sets, hub_tokens, jobs

# The text that every service has; its rows are made anew whenever they are asked for.
BUILTIN_NAME = "builtin"
TEXTS = Kept(
    table=calibration_sets,
    noun="calibration set",
    used_by=jobs.c.calibration_set_id,
    lasting=calibration_sets.c.name == BUILTIN_NAME,
)


class RetentionPart(KeptPart):
    """The part of the repository that retention and hub tokens use."""

    def set_hub_token(self, owner: str, token_sealed: str) -> datetime:
        """Stores an owner's token in place of an earlier one, and returns when."""
        statement = self._insert(hub_tokens).values(
            owner_key_id=owner, token_sealed=token_sealed, created_at=database_time()
        )
        renewed = {"token_sealed": statement.excluded.token_sealed, "created_at": statement.excluded.created_at}
        statement = statement.on_conflict_do_update(index_elements=["owner_key_id"], set_=renewed)
        stored: datetime = self._connection.execute(statement.returning(hub_tokens.c.created_at)).scalar_one()
        return stored

    def hub_token(self, owner: str) -> tuple[str, datetime] | None:
        """Returns an owner's sealed token and when it was stored; None where there is none."""
        row = self._connection.execute(select(hub_tokens).where(hub_tokens.c.owner_key_id == owner)).one_or_none()
        return None if row is None else (row.token_sealed, row.created_at)

    def remove_hub_token(self, owner: str) -> None:
        """Forgets an owner's token; nothing happens where there is none."""
        self._connection.execute(delete(hub_tokens).where(hub_tokens.c.owner_key_id == owner))

    def keep_job(self, job_id: str, changes: Mapping[str, Any], owner: str | None = None) -> Job:
        """Sets some of pinned and expires_at; raises NotFoundError.

        A new time is warned of anew. A pinned job's files stay whatever the time says.
        """
        row = self._job_row(job_id, owner, lock=True)
        if not changes:
            return job_from_row(row)
        again = {"expiry_warned_at": None} if "expires_at" in changes else {}
        changed = self._change(Guard(job_id, frozenset(JobState)), {**changes, **again})
        return job_from_row(row if changed is None else changed)

    def assign_expiry(self, keep_seconds: float, notice_seconds: float) -> int:
        """Gives finished jobs that have files and no time yet their time, never sooner than the notice; how many."""
        now: datetime = self._connection.execute(select(database_time())).scalar_one()
        held = exists().where(artifacts.c.job_id == jobs.c.id)
        statement = (
            select(jobs.c.id, jobs.c.finished_at)
            .where(jobs.c.state == JobState.SUCCEEDED, jobs.c.expires_at.is_(None), ~jobs.c.pinned, held)
            .limit(BATCH)
            .with_for_update(skip_locked=True)
        )
        rows = self._connection.execute(statement).all()
        for row in rows:
            wanted = row.finished_at + timedelta(seconds=keep_seconds)
            expires_at = max(wanted, now + timedelta(seconds=notice_seconds))
            self._change(_succeeded(row.id), {"expires_at": expires_at})
        return len(rows)

    def warn_of_expiry(self, notice_seconds: float) -> tuple[str, ...]:
        """Writes an event into the history of jobs whose files go within the notice, once; returns their ids."""
        due = and_(
            jobs.c.expires_at <= database_time(notice_seconds), jobs.c.expiry_warned_at.is_(None), ~jobs.c.pinned
        )
        return self._tell(due, EventKind.ARTIFACTS_EXPIRING, {"expiry_warned_at": database_time()})

    def expire_artifacts(self) -> tuple[str, ...]:
        """Removes the files of jobs whose time has come and who were warned; returns the jobs' ids."""
        due = and_(jobs.c.expires_at <= database_time(), jobs.c.expiry_warned_at.is_not(None), ~jobs.c.pinned)
        ids = self._tell(due, EventKind.ARTIFACTS_EXPIRED, {})
        if ids:
            self._connection.execute(delete(artifacts).where(artifacts.c.job_id.in_(ids)))
        return ids

    def _tell(self, due: Any, kind: EventKind, values: Mapping[str, Any]) -> tuple[str, ...]:  # noqa: ANN401 - a condition
        held = exists().where(artifacts.c.job_id == jobs.c.id)
        statement = select(jobs.c.id, jobs.c.expires_at).where(jobs.c.state == JobState.SUCCEEDED, due, held)
        rows = self._connection.execute(statement.limit(BATCH).with_for_update(skip_locked=True)).all()
        for row in rows:
            changed = self._change(_succeeded(row.id), {**values, "event_count": jobs.c.event_count + 1})
            if changed is not None:
                payload = {"state": JobState.SUCCEEDED, "expires_at": row.expires_at.isoformat()}
                self._append_event(changed, kind, payload)
        return tuple(row.id for row in rows)

    def keep_calibration_set(self, set_id: str, changes: Mapping[str, Any], owner: str | None = None) -> CalibrationSet:
        """Sets some of pinned and expires_at; raises NotFoundError."""
        return calibration_set_from_row(self._keep(TEXTS, set_id, changes, owner))

    def delete_calibration_set(self, set_id: str, owner: str | None = None) -> None:
        """Removes a text for good; jobs that are over forget it, and cannot be retried.

        Raises NotFoundError, or WrongStateError where a job that is not over needs it.
        """
        self._delete_kept(TEXTS, set_id, owner)

    def expire_calibration_sets(self, keep_seconds: float | None) -> tuple[str, ...]:
        """Removes texts whose time has come and that no unfinished job needs; returns their ids.

        keep_seconds: since the upload, for those without a time of their own; None: these stay.
        """
        return self._expire_kept(TEXTS, keep_seconds)


def _succeeded(job_id: str) -> Guard:
    return Guard(job_id, frozenset({JobState.SUCCEEDED}))
