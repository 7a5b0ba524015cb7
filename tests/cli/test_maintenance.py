"""`bitmill admin sweep | requeue | export`, run on a database as an operator would."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from cli.errors import CliError, Complaint, ExitCode, complaint_from
from cli.main import build_app
from store.errors import StoreError
from store.jobs import JobState
from store.session import Database
from tests.conformance.samples import BROKEN, submit, submit_and_claim

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """The SQLite database of a data directory of the test's own."""
    monkeypatch.setenv("BITMILL_DATA_DIR", str(tmp_path))
    database = Database(f"sqlite:///{tmp_path}/bitmill.db")
    database.upgrade()
    return database


def run(*words: str) -> Any:  # noqa: ANN401 - JSON of any form
    """Runs `bitmill admin WORDS --json` and returns what it printed."""
    done = CliRunner().invoke(build_app(), ["admin", *words, "--json"], catch_exceptions=False)
    return json.loads(done.stdout)


def refused(*words: str) -> Complaint:
    """Runs a command that is refused and returns what a user reads."""
    with pytest.raises((CliError, StoreError)) as caught:
        run(*words)
    return complaint_from(caught.value)


def failed(database: Database) -> str:
    """Returns the id of a job that has failed."""
    job = submit_and_claim(database)
    with database.transaction() as repository:
        return repository.fail(job.id, job.lease_token, BROKEN).id


def states(database: Database, *job_ids: str) -> list[JobState]:
    """Returns the states of jobs."""
    with database.reading() as repository:
        return [repository.get_job(job_id).state for job_id in job_ids]


def test_named_jobs_are_queued_again(database: Database):
    """Those that are named and no other."""
    first, second = failed(database), failed(database)
    assert run("requeue", first) == {"requeued": [first]}
    assert states(database, first, second) == [JobState.QUEUED, JobState.FAILED]


def test_all_or_none_are_queued_again(database: Database):
    """One job that runs keeps the others as they are; the error names it."""
    broken, running = failed(database), submit_and_claim(database).id
    complaint = refused("requeue", broken, running)
    assert (complaint.code, complaint.exit_code) == ("wrong_state", ExitCode.REFUSED)
    assert running in complaint.message
    assert states(database, broken, running) == [JobState.FAILED, JobState.RUNNING]


def test_every_failed_job_is_queued_again(database: Database, monkeypatch: pytest.MonkeyPatch):
    """Also where there are more than one page of them."""
    monkeypatch.setattr("cli.maintenance.PAGE", 2)
    broken = {failed(database) for _ in range(5)}
    assert set(run("requeue", "--all-failed")["requeued"]) == broken
    assert set(states(database, *broken)) == {JobState.QUEUED}


def test_it_must_be_told_which_jobs(database: Database):
    """Neither nothing nor both spellings."""
    for words in ((), (submit(database).id, "--all-failed")):
        assert refused("requeue", *words).code == "no_jobs_named"


def test_a_sweep_takes_a_job_back_from_a_dead_worker(database: Database):
    """And counts what it did."""
    job = submit(database)
    with database.transaction() as repository:
        repository.claim("wrk_dead", "default", lease_seconds=-1)
    assert run("sweep") == {"jobs_taken_back": [job.id], "jobs_overdue": [], "blobs_removed": 0}
    assert states(database, job.id) == [JobState.QUEUED]


def test_a_sweep_fails_what_waited_too_long(database: Database):
    """A job past its deadline."""
    job = submit(database, deadline_seconds=-1)
    assert run("sweep")["jobs_overdue"] == [job.id]
    assert states(database, job.id) == [JobState.FAILED]


def test_export_copies_to_another_database(database: Database, tmp_path: Path):
    """The rows are counted by table; a second time it is refused, for the other one holds rows."""
    submit(database)
    url = f"sqlite:///{tmp_path}/other.db"
    assert run("export", "--to", url)["copied"]["jobs"] == 1
    assert refused("export", "--to", url).code == "transfer_refused"


def test_export_refuses_what_is_no_database(database: Database):
    """The message names the forms that it takes."""
    complaint = refused("export", "--to", "mysql://host/name")
    assert (complaint.code, complaint.field) == ("bad_database_url", "--to")
    assert "postgresql+psycopg://" in complaint.hint
