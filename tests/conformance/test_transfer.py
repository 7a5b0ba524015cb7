"""Moving an installation to another database: every row arrives, or none."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest

from store.errors import TransferRefusedError
from store.jobs import Job, JobFilter, JobState, NewCalibrationSet
from store.models import ModelFile, NewUploadedModel
from store.session import Database
from store.transfer import copy_database
from tests.conformance.samples import BROKEN, FILES, WORKER, new_job, submit, submit_and_claim

MANY = 10_000


@pytest.fixture
def sqlite(tmp_path: Path) -> Database:
    """An SQLite database that holds nothing, not even a schema."""
    return Database(f"sqlite:///{tmp_path}/old/{uuid.uuid4().hex}.db")


def fill(database: Database) -> None:
    """Stores one of each: finished, failed, queued and labelled jobs, a calibration set, a model, a key."""
    database.upgrade()
    with database.transaction() as repository:
        repository.add_api_key("ops", frozenset({"jobs:read"}), None)
        text = NewCalibrationSet(
            owner_key_id="key_a", name="t", format="text", sha256="c" * 64, size_bytes=4, documents=1
        )
        kept = repository.add_calibration_set(text)
        weights = ModelFile(name="model.safetensors", sha256="d" * 64, size_bytes=9)
        repository.add_uploaded_model(
            NewUploadedModel(owner_key_id="key_a", name="m", model_type="llama", files=(weights,))
        )
    done = submit_and_claim(database)
    with database.transaction() as repository:
        repository.succeed(done.id, done.lease_token, FILES)
    broken = submit_and_claim(database)
    with database.transaction() as repository:
        repository.fail(broken.id, broken.lease_token, BROKEN)
        repository.add_job(new_job(calibration_set_id=kept.id, labels={"team": "a"}))


def everything(database: Database) -> dict[str, list[dict[str, object]]]:
    """Returns all rows of all tables."""
    with database.snapshot() as repository:
        return {
            table: [dict(row) for rows in repository.table_rows(table) for row in rows]
            for table in repository.moved_tables()
        }


def test_every_row_arrives_as_it_was(sqlite: Database, postgres_url: str):
    """PostgreSQL then holds what SQLite held, and goes on: a queued job can be claimed, events keep their order."""
    fill(sqlite)
    target = Database(postgres_url)
    copied = copy_database(sqlite, target)
    assert everything(target) == everything(sqlite)
    assert copied["jobs"] == len(("done", "broken", "queued"))
    assert copied["artifacts"] == len(FILES)
    assert (copied["uploaded_models"], copied["model_files"]) == (1, 1)
    with target.reading() as repository:
        place = repository.stream_end()
    new = submit(target)
    with target.transaction() as repository:
        claimed = repository.claim(WORKER, "default", 60)
        news = [(one.event.job_id, one.event.kind) for one in repository.read_stream(place, 10).events]
    assert claimed is not None
    assert claimed.id != new.id  # the job that had waited in the other database comes first
    assert news == [(new.id, "submitted")]
    target.dispose()


def numbered(row: Mapping[str, object], job: Job, number: int) -> dict[str, object]:
    """Returns a row of one job as that of another."""
    key = "id" if "id" in row else "job_id"
    label = {"value": str(number)} if "value" in row else {}
    return {**row, key: f"{job.id}-{number}", **label}


def test_ten_thousand_jobs_move(sqlite: Database, postgres_url: str):
    """As many rows as a year of work leaves, in one transaction, counted on the way."""
    sqlite.upgrade()
    job = submit(sqlite, labels={"n": "0"})
    with sqlite.transaction() as repository:
        for table in ("jobs", "job_labels", "events"):
            ((row,),) = repository.table_rows(table)
            copies = [numbered(row, job, number) for number in range(1, MANY)]
            repository.add_rows(table, copies)
    target = Database(postgres_url)
    seen: list[tuple[str, int, int]] = []
    copied = copy_database(sqlite, target, lambda *told: seen.append(told))
    assert (copied["jobs"], copied["job_labels"], copied["events"]) == (MANY, MANY, MANY)
    assert ("jobs", MANY, MANY) in seen
    with target.reading() as repository:
        assert repository.state_counts()[JobState.QUEUED] == MANY
        assert len(repository.list_jobs("key_a", JobFilter(labels=(("n", "7"),)), 10)) == 1
    target.dispose()


def test_it_goes_back_to_sqlite(database: Database, sqlite: Database):
    """Either kind of database can be the target."""
    fill(database)
    copy_database(database, sqlite)
    assert everything(sqlite) == everything(database)


def test_a_job_in_a_workers_hands_is_not_copied(database: Database, sqlite: Database):
    """Its worker would write to the old database: refused with the number of such jobs, nothing is written."""
    submit_and_claim(database)
    with pytest.raises(TransferRefusedError, match="holds 1 jobs"):
        copy_database(database, sqlite)
    assert not any(everything(sqlite).values())


def test_a_database_in_use_is_not_written_over(database: Database, sqlite: Database):
    """Rows of two installations never mix: the target must be empty, and stays what it was."""
    fill(database)
    sqlite.upgrade()
    submit(sqlite)
    before = everything(sqlite)
    with pytest.raises(TransferRefusedError, match="jobs"):
        copy_database(database, sqlite)
    assert everything(sqlite) == before
