"""Publications to the model hub: asked for, taken by a worker under a lease, ended."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, insert, select, update

from store.errors import WrongStateError
from store.ids import IdPrefix, new_id
from store.jobs import JobState
from store.publications import NewPublication, Publication, PublicationState
from store.repository.base import RepositoryBase
from store.repository.clock import database_time
from store.tables import artifacts, publications


class PublicationPart(RepositoryBase):
    """The part of the repository that publications use."""

    def add_publication(self, new: NewPublication, owner: str | None = None) -> Publication:
        """Stores a request. Raises NotFoundError, and WrongStateError where the job has no files (any more)."""
        row = self._job_row(new.job_id, owner)
        held = self._connection.execute(select(artifacts.c.id).where(artifacts.c.job_id == new.job_id).limit(1)).first()
        if row.state != JobState.SUCCEEDED:
            raise WrongStateError(new.job_id, row.state, "published")
        if held is None:
            raise WrongStateError(new.job_id, f"{row.state}, but its files are gone", "published")
        values = {
            "id": new_id(IdPrefix.PUBLICATION),
            "job_id": new.job_id,
            "owner_key_id": new.owner_key_id,
            "repo": new.repo,
            "private": new.private,
            "state": PublicationState.PENDING,
            "attempts": 0,
            "created_at": database_time(),
            "next_attempt_at": database_time(),
        }
        made = insert(publications).values(values).returning(*publications.c)
        return _publication(self._connection.execute(made).one())

    def list_publications(self, job_id: str, owner: str | None = None) -> tuple[Publication, ...]:
        """Returns a job's publications, newest first; raises NotFoundError."""
        self._job_row(job_id, owner)
        statement = select(publications).where(publications.c.job_id == job_id)
        newest = statement.order_by(publications.c.created_at.desc(), publications.c.id.desc())
        return tuple(_publication(row) for row in self._connection.execute(newest))

    def take_publication(self, lease_seconds: float) -> Publication | None:
        """Takes the oldest that is due; it comes again when the lease runs out. None: there is none."""
        due = (
            select(publications.c.id)
            .where(publications.c.state == PublicationState.PENDING)
            .where(publications.c.next_attempt_at <= database_time())
            .order_by(publications.c.next_attempt_at, publications.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        identifier = self._connection.execute(due).scalar_one_or_none()
        if identifier is None:
            return None
        statement = update(publications).where(publications.c.id == identifier)
        taken = statement.values(
            attempts=publications.c.attempts + 1, next_attempt_at=database_time(lease_seconds)
        ).returning(*publications.c)
        return _publication(self._connection.execute(taken).one())

    def renew_publication(self, taken: Publication, lease_seconds: float) -> bool:
        """Holds on to a publication; returns whether it is still this attempt's."""
        values = {"next_attempt_at": database_time(lease_seconds)}
        return self._hold(taken, values)

    def end_publication(
        self, taken: Publication, *, commit: str | None, error: str | None, retry_seconds: float | None
    ) -> bool:
        """Says how an attempt ended; error None: published. retry_seconds None: there is no further attempt.

        Returns whether it was still this attempt's to say.
        """
        again = error is not None and retry_seconds is not None
        over = PublicationState.PUBLISHED if error is None else PublicationState.FAILED
        values = {
            "state": PublicationState.PENDING if again else over,
            "commit": commit,
            "error": error,
            "next_attempt_at": database_time(retry_seconds or 0.0) if again else None,
            "finished_at": None if again else database_time(),
        }
        return self._hold(taken, values)

    def _hold(self, taken: Publication, values: dict[str, Any]) -> bool:
        statement = update(publications).where(_mine(taken)).values(values).returning(publications.c.id)
        return self._connection.execute(statement).one_or_none() is not None


def _mine(taken: Publication) -> ColumnElement[bool]:
    return and_(
        publications.c.id == taken.id,
        publications.c.attempts == taken.attempts,
        publications.c.state == PublicationState.PENDING,
    )


def _publication(row: Any) -> Publication:  # noqa: ANN401 - a row
    return Publication(
        id=row.id,
        job_id=row.job_id,
        owner_key_id=row.owner_key_id,
        repo=row.repo,
        private=row.private,
        state=PublicationState(row.state),
        attempts=row.attempts,
        commit=row.commit,
        error=row.error,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )
