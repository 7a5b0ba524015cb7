"""What owners store for their jobs to use, and how it is let go: never while a job that is not over needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, delete, select, true, update

from store.errors import NotFoundError, WrongStateError
from store.jobs import TERMINAL_STATES
from store.kept import KeptKind
from store.repository.base import RepositoryBase, owned
from store.repository.terms import changed_term
from store.tables import jobs

if TYPE_CHECKING:
    from sqlalchemy import Column, ColumnElement, Row, Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A table with id, owner_key_id, name, size_bytes, created_at and the columns of a term.

    path: where rows are over HTTP. used_by: the column of jobs that names a row.
    lasting: rows that no rule lets go.
    """

    kind: KeptKind
    table: Table
    path: str
    used_by: Column[str]
    lasting: ColumnElement[bool] = ~true()

    @property
    def noun(self) -> str:
        """What a row is called."""
        return self.kind.replace("_", " ")


class KeptPart(RepositoryBase):
    """What the parts for texts and models have in common."""

    def _kept_row(self, kept: Kept, row_id: str, owner: str | None, *, lock: bool = False) -> Row[Any]:
        """Raises NotFoundError where there is no such row, or it is another owner's."""
        statement = owned(select(kept.table), kept.table, owner).where(kept.table.c.id == row_id)
        row = self._connection.execute(statement.with_for_update() if lock else statement).one_or_none()
        if row is None:
            raise NotFoundError(kept.noun, row_id)
        return row

    def _keep(self, kept: Kept, row_id: str, changes: Mapping[str, Any], owner: str | None) -> Row[Any]:
        """Sets some of pinned and expires_at; raises NotFoundError."""
        row = self._kept_row(kept, row_id, owner, lock=True)
        if changes:
            statement = update(kept.table).where(kept.table.c.id == row_id).values(changed_term(changes))
            row = self._connection.execute(statement.returning(*kept.table.c)).one()
        return row

    def _delete_kept(self, kept: Kept, row_id: str, owner: str | None = None) -> None:
        """Removes a row for good; jobs that are over forget it.

        Raises NotFoundError, or WrongStateError where a job that is not over needs it.
        """
        self._kept_row(kept, row_id, owner, lock=True)
        needed = select(jobs.c.id, jobs.c.state).where(
            and_(kept.used_by == row_id, jobs.c.state.not_in(TERMINAL_STATES))
        )
        needing = self._connection.execute(needed.limit(1)).first()
        if needing is not None:
            raise WrongStateError(needing.id, needing.state, f"parted from its {kept.noun} {row_id}")
        self._connection.execute(update(jobs).where(kept.used_by == row_id).values({kept.used_by.name: None}))
        self._connection.execute(delete(kept.table).where(kept.table.c.id == row_id))
