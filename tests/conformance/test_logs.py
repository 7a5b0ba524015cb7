"""Log lines: kept in order, bounded, written only under the lease, read only by the owner."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from store.errors import LeaseLostError, NotFoundError
from store.jobs import LogLine
from store.repository import logs
from store.session import Database
from tests.conformance.samples import claim, submit, submit_and_claim


def lines(*numbers: int) -> list[LogLine]:
    at = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
    return [
        LogLine(number=number, at=at, level="info", source="child", text=f"line {number}", fields={"n": number})
        for number in numbers
    ]


def test_the_newest_lines_come_oldest_first(database: Database):
    """Of all attempts or of one; what was written twice is there once, and the job's version stays."""
    job = submit_and_claim(database)
    with database.transaction() as repository:
        repository.add_log_lines(job.id, job.lease_token, lines(1, 2, 3))
        repository.add_log_lines(job.id, job.lease_token, lines(2, 3, 4))
        assert repository.get_job(job.id).version == job.version
        repository.release(job.id, job.lease_token)
    again = claim(database)
    with database.transaction() as repository:
        repository.add_log_lines(again.id, again.lease_token, lines(1))
        repository.add_log_lines(again.id, again.lease_token, [])
    with database.reading() as repository:
        read = repository.list_log_lines(job.id, 3)
        assert [(line.attempt, line.number) for line in read] == [(1, 3), (1, 4), (2, 1)]
        assert [line.text for line in repository.list_log_lines(job.id, 10, attempt=1)] == [
            f"line {number}" for number in (1, 2, 3, 4)
        ]
        assert (read[0].at, read[0].fields) == (lines(3)[0].at, {"n": 3})
        with pytest.raises(NotFoundError):
            repository.list_log_lines(job.id, 1, owner="key_b")


def test_an_attempt_keeps_so_many_lines(database: Database, monkeypatch: pytest.MonkeyPatch):
    """The newest ones, also where more come at once than are kept."""
    monkeypatch.setattr(logs, "LINES_KEPT", 5)
    job = submit_and_claim(database)
    with database.transaction() as repository:
        repository.add_log_lines(job.id, job.lease_token, lines(1, 2, 3))
        repository.add_log_lines(job.id, job.lease_token, lines(*range(4, 20)))
    with database.reading() as repository:
        assert [line.number for line in repository.list_log_lines(job.id, 100)] == list(range(15, 20))


def test_only_the_holder_writes(database: Database):
    job = submit_and_claim(database)
    for job_id, token in ((job.id, job.lease_token - 1), (submit(database).id, 0)):
        with pytest.raises(LeaseLostError), database.transaction() as repository:
            repository.add_log_lines(job_id, token, lines(1))
