"""What is kept for how long: hub tokens of owners, pins, and the times at which files and texts go.

Nothing goes without a word: a job's history tells of it before and after. The bytes go with the sweep of blobs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, delete, exists, select

from store.jobs import CalibrationSet, EventKind, Job, JobState
from store.kept import KeptKind
from store.publications import PublicationState
from store.repository.base import Guard
from store.repository.clock import database_time
from store.repository.kept import Kept, KeptPart
from store.repository.rows import calibration_set_from_row, job_from_row
from store.repository.terms import BATCH, changed_term, end_due, first_term, warned_term, warning_due
from store.tables import artifacts, calibration_sets, hub_tokens, jobs, publications

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Row

# The text that every service has; its rows are made anew whenever they are asked for.
BUILTIN_NAME = "builtin"
TEXTS = Kept(
    kind=KeptKind.CALIBRATION_SET,
    table=calibration_sets,
    path="/v1/calibration-sets",
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

        A pinned job's files stay whatever the time says; see `terms` for what a change does to a warning.
        """
        row = self._job_row(job_id, owner, lock=True)
        if not changes:
            return job_from_row(row)
        changed = self._change(Guard(job_id, frozenset(JobState)), changed_term(changes))
        return job_from_row(row if changed is None else changed)

    def assign_expiry(self, keep_seconds: float, notice_seconds: float) -> int:
        """Gives finished jobs that have files and no time yet their time, never sooner than the notice; how many."""
        now = self._now()
        held = exists().where(artifacts.c.job_id == jobs.c.id)
        statement = (
            select(jobs.c.id, jobs.c.finished_at)
            .where(jobs.c.state == JobState.SUCCEEDED, jobs.c.expires_at.is_(None), ~jobs.c.pinned, held)
            .limit(BATCH)
            .with_for_update(skip_locked=True)
        )
        rows = self._connection.execute(statement).all()
        for row in rows:
            expires_at = first_term(row.finished_at, keep_seconds, now, notice_seconds)
            self._change(_succeeded(row.id), {"expires_at": expires_at})
        return len(rows)

    def warn_of_expiry(self, notice_seconds: float) -> tuple[str, ...]:
        """Writes an event into the history of jobs whose files go within the notice, once; returns their ids."""
        now = self._now()
        rows = self._jobs_where(warning_due(jobs, notice_seconds))
        for row in rows:
            self._tell(row.id, EventKind.ARTIFACTS_EXPIRING, warned_term(row.expires_at, now, notice_seconds))
        return tuple(row.id for row in rows)

    def expire_artifacts(self) -> tuple[str, ...]:
        """Removes the files of jobs whose time has come and who were warned; returns the jobs' ids.

        What is still to be uploaded to the hub stays until that has ended.
        """
        awaited = exists().where(publications.c.job_id == jobs.c.id, publications.c.state == PublicationState.PENDING)
        rows = self._jobs_where(and_(end_due(jobs), ~awaited))
        for row in rows:
            self._tell(row.id, EventKind.ARTIFACTS_EXPIRED, {"expires_at": row.expires_at})
            self._connection.execute(delete(artifacts).where(artifacts.c.job_id == row.id))
        return tuple(row.id for row in rows)

    def _jobs_where(self, condition: ColumnElement[bool]) -> Sequence[Row[Any, Any]]:
        held = exists().where(artifacts.c.job_id == jobs.c.id)
        statement = select(jobs.c.id, jobs.c.expires_at).where(jobs.c.state == JobState.SUCCEEDED, condition, held)
        return self._connection.execute(statement.limit(BATCH).with_for_update(skip_locked=True)).all()

    def _tell(self, job_id: str, kind: EventKind, term: Mapping[str, Any]) -> None:
        changed = self._change(_succeeded(job_id), {**term, "event_count": jobs.c.event_count + 1})
        if changed is not None:
            payload = {"state": JobState.SUCCEEDED, "expires_at": term["expires_at"].isoformat()}
            self._append_event(changed, kind, payload)

    def keep_calibration_set(self, set_id: str, changes: Mapping[str, Any], owner: str | None = None) -> CalibrationSet:
        """Sets some of pinned and expires_at; raises NotFoundError."""
        return calibration_set_from_row(self._keep(TEXTS, set_id, changes, owner))

    def delete_calibration_set(self, set_id: str, owner: str | None = None) -> None:
        """Removes a text for good; jobs that are over forget it, and cannot be retried.

        Raises NotFoundError, or WrongStateError where a job that is not over needs it.
        """
        self._delete_kept(TEXTS, set_id, owner)


def _succeeded(job_id: str) -> Guard:
    return Guard(job_id, frozenset({JobState.SUCCEEDED}))
