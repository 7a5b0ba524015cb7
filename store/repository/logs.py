"""The newest log lines of each attempt: written by the worker that holds the job, read by the job's owner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import delete, select

from store.errors import LeaseLostError
from store.jobs import HELD_STATES, LogLine
from store.repository.base import RepositoryBase
from store.tables import jobs, log_lines

LINES_KEPT = 2000
"""Of each attempt; older ones go as newer ones come."""


class LogPart(RepositoryBase):
    """The part of the repository that log lines use."""

    def add_log_lines(self, job_id: str, lease_token: int, lines: Sequence[LogLine]) -> None:
        """Adds lines, oldest first, to the attempt that holds the lease; a line that is there already stays.

        It does not change the job's version. Raises LeaseLostError.
        """
        held = select(jobs.c.attempt).where(
            jobs.c.id == job_id, jobs.c.lease_token == lease_token, jobs.c.state.in_(HELD_STATES)
        )
        attempt = self._connection.execute(held.with_for_update()).scalar_one_or_none()
        if attempt is None:
            raise LeaseLostError(job_id, lease_token)
        if not lines:
            return
        rows = [
            {**asdict(line), "fields": dict(line.fields), "job_id": job_id, "attempt": attempt}
            for line in lines[-LINES_KEPT:]
        ]
        self._connection.execute(self._insert(log_lines).on_conflict_do_nothing(), rows)
        old = log_lines.c.number <= lines[-1].number - LINES_KEPT
        self._connection.execute(
            delete(log_lines).where(log_lines.c.job_id == job_id, log_lines.c.attempt == attempt, old)
        )

    def list_log_lines(
        self, job_id: str, tail: int, *, attempt: int | None = None, owner: str | None = None
    ) -> tuple[LogLine, ...]:
        """Returns the newest lines, oldest of them first, of one attempt or of all.

        Raises NotFoundError where the job is missing or another owner's.
        """
        self._job_row(job_id, owner)
        statement = select(log_lines).where(log_lines.c.job_id == job_id)
        if attempt is not None:
            statement = statement.where(log_lines.c.attempt == attempt)
        newest = statement.order_by(log_lines.c.attempt.desc(), log_lines.c.number.desc()).limit(tail)
        lines = [
            LogLine(
                attempt=row.attempt,
                number=row.number,
                at=row.at,
                level=row.level,
                source=row.source,
                text=row.text,
                fields=row.fields,
            )
            for row in self._connection.execute(newest)
        ]
        return tuple(reversed(lines))
