"""The schema itself: migrations lead to what the code expects and back, and refuse rows that cannot be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import IntegrityError

from store.jobs import JobProgress, Stage
from store.session import MIGRATIONS, Database
from store.tables import metadata
from tests.conformance.samples import BROKEN, FILES, claim, submit, submit_and_claim
from tests.servers import PostgresServer


@pytest.fixture(params=["sqlite", "postgresql"])
def bare_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without any table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/folder/bare.db"
        return
    postgres: PostgresServer = request.getfixturevalue("postgres")
    with postgres.database() as url:
        yield url


def _tables(url: str) -> set[str]:
    engine = create_engine(url)
    try:
        return set(inspect(engine).get_table_names()) - {"alembic_version"}
    finally:
        engine.dispose()


def test_up_down_up(bare_url: str) -> None:
    """Every migration can be taken back and made again; down to base leaves no table of ours."""
    database = Database(bare_url)
    database.upgrade()
    first = _tables(bare_url)
    database.downgrade("base")
    assert _tables(bare_url) == set()
    database.upgrade()
    assert _tables(bare_url) == first == set(metadata.tables)
    submit_and_claim(database)
    database.dispose()


def test_each_step_goes_both_ways(bare_url: str) -> None:
    """Going up one revision at a time, each step can be undone and done again."""
    database = Database(bare_url)
    for script in reversed(list(ScriptDirectory(str(MIGRATIONS)).walk_revisions())):
        database.upgrade(script.revision)
        database.downgrade("base" if script.down_revision is None else str(script.down_revision))
        database.upgrade(script.revision)
    database.dispose()


def test_migrations_make_what_the_tables_say(bare_url: str) -> None:
    """Columns, keys and indexes of the migrated database are the ones that the code uses."""
    database = Database(bare_url)
    database.upgrade()
    database.dispose()
    engine = create_engine(bare_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_concurrent_upgrades_do_the_work_once(bare_url: str) -> None:
    """Several processes that start at once all end with the newest schema and no error."""
    program = "import sys; from store.session import Database; Database(sys.argv[1]).upgrade()"
    processes = [subprocess.Popen([sys.executable, "-c", program, bare_url]) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert _tables(bare_url) == set(metadata.tables)


IMPOSSIBLE_JOBS = {
    "unknown state": "state = 'paused'",
    "running without a lease": "state = 'running'",
    "lease without a holder": "lease_expires_at = created_at",
    "holder without a lease": "worker_id = 'wrk'",
    "finished but queued": "finished_at = created_at",
    "terminal but not finished": "state = 'cancelled'",
    "failed without an error": "state = 'failed', finished_at = created_at",
    "error without having failed": "error = '{}'",
    "succeeded half way": "state = 'succeeded', finished_at = created_at, progress_fraction = 0.5",
    "stage while queued": "stage = 'packing'",
    "more failures than attempts": "failures = 1",
    "no budget left but queued": "attempt = 3, lease_token = 3, failures = 3",
    "no attempts allowed": "max_attempts = 0",
    "token behind the attempts": "attempt = 1",
    "fraction above one": "progress_fraction = 1.5",
    "more blocks than there are": "blocks_done = 2, blocks_total = 1",
    "key without a request": "idempotency_key = 'k'",
    "evaluation before the end": "evaluation = '{}'",
}


@pytest.mark.parametrize("assignment", IMPOSSIBLE_JOBS.values(), ids=IMPOSSIBLE_JOBS.keys())
def test_impossible_jobs_are_refused(database: Database, database_url: str, assignment: str) -> None:
    """Whoever writes it, a row that no transition can make does not enter the table."""
    submit(database)
    _refused(database_url, "UPDATE jobs SET " + assignment)  # noqa: S608 - the cases above


def _refused(url: str, statement: str, **values: str) -> None:
    engine = create_engine(url)
    with engine.connect() as connection, pytest.raises(IntegrityError):
        connection.execute(text(statement), values)
    engine.dispose()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE attempts SET outcome = 'failed'",
        "UPDATE attempts SET ended_at = started_at",
        "UPDATE attempts SET ended_at = started_at, outcome = 'vanished'",
        "INSERT INTO attempts (job_id, number, worker_id, started_at) SELECT job_id, 2, 'w', started_at FROM attempts",
        "UPDATE events SET seq = 0 WHERE seq = 1",
        "UPDATE events SET seq = 1 WHERE seq = 2",
    ],
)
def test_impossible_history_is_refused(database: Database, database_url: str, statement: str) -> None:
    """An attempt ends with an outcome that exists, one at a time is open, and event numbers are unique."""
    submit_and_claim(database)
    _refused(database_url, statement)


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../up", "a/../../b"])
def test_artifact_names_stay_inside(database: Database, database_url: str, name: str) -> None:
    """An artifact's name cannot lead out of the folder that it is unpacked into."""
    job = submit_and_claim(database)
    with database.transaction() as repository:
        repository.succeed(job.id, job.lease_token, FILES[:1])
    _refused(database_url, "UPDATE artifacts SET name = :name", name=name)


def test_every_possible_state_is_accepted(database: Database) -> None:
    """The constraints let each state in that the diagram has, by each way."""
    for last_step in ("queued", "running", "cancelling", "succeeded", "failed", "cancelled"):
        job = submit_and_claim(database)
        with database.transaction() as repository:
            progress = JobProgress(fraction=0.5, blocks_done=1, blocks_total=2)
            repository.heartbeat(job.id, job.lease_token, stage=Stage.QUANTIZING, progress=progress)
            match last_step:
                case "queued":
                    repository.release(job.id, job.lease_token, BROKEN, count_failure=True, delay_seconds=60)
                case "cancelling":
                    repository.request_cancel(job.id)
                case "succeeded":
                    repository.succeed(job.id, job.lease_token, FILES, {"perplexity": 1.0})
                case "failed":
                    repository.fail(job.id, job.lease_token, BROKEN)
                case "cancelled":
                    repository.request_cancel(job.id)
                    repository.cancelled(job.id, job.lease_token)
            assert repository.get_job(job.id).state == last_step


def test_documents_survive_unchanged(database: Database) -> None:
    """Nested JSON with text of any language, large numbers and nulls comes back as it went in."""
    document = {"text": 'größe 模型 \U0001f600 \\ "', "number": 2**53, "real": 0.1, "none": None, "list": [1, [], {}]}
    submit(database)
    job = claim(database)
    with database.transaction() as repository:
        repository.set_resolved(job.id, job.lease_token, document)
    with database.reading() as repository:
        assert repository.get_job(job.id).resolved == document
