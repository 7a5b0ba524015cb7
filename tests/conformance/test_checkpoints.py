"""Blocks of jobs under way in the object store: what a later attempt finds, and when the bytes are free again."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.artifacts import ArtifactStore
from store.jobs import Checkpoint, Job
from store.session import Database
from store.sweep import sweep_blobs
from tests.conformance.samples import BROKEN, FILES, claim, submit_and_claim

AT_ONCE = -1.0


def record(database: Database, job: Job, block: int, *, fingerprint: str = "one", sha256: str = "") -> None:
    """Says that a block is in the store."""
    checkpoint = Checkpoint(
        block=block,
        fingerprint=fingerprint,
        sha256=sha256 or f"{block:064x}",
        size_bytes=10,
        record={"rows": [{"loss": 0.5}]},
    )
    with database.transaction() as repository:
        repository.record_checkpoint(job.id, job.lease_token, checkpoint)


def blocks(database: Database, job: Job) -> list[tuple[int, str]]:
    with database.reading() as repository:
        return [(found.block, found.fingerprint) for found in repository.list_checkpoints(job.id)]


def test_blocks_outlive_the_attempt(database: Database):
    """The next worker finds what the last one recorded, as it was recorded, and adds to it."""
    job = submit_and_claim(database)
    for block in range(3):
        record(database, job, block)
    with database.transaction() as repository:
        repository.release(job.id, job.lease_token, BROKEN, count_failure=True)
    job = claim(database, "wrk_2")
    record(database, job, 3)
    assert blocks(database, job) == [(block, "one") for block in range(4)]
    with database.reading() as repository:
        assert repository.list_checkpoints(job.id)[0].record == {"rows": [{"loss": 0.5}]}


def test_a_run_under_other_settings_begins_anew(database: Database):
    """Blocks of two fingerprints never stand together, and a block that is solved again drops those behind it."""
    job = submit_and_claim(database)
    for block in range(3):
        record(database, job, block)
    record(database, job, 0, fingerprint="two")
    record(database, job, 1, fingerprint="two")
    assert blocks(database, job) == [(0, "two"), (1, "two")]
    record(database, job, 0, fingerprint="two")
    assert blocks(database, job) == [(0, "two")]


def test_only_what_has_no_gap_is_found(database: Database):
    """Without the blocks before it, a block is of no use."""
    job = submit_and_claim(database)
    for block in (0, 1, 3):
        record(database, job, block)
    assert blocks(database, job) == [(0, "one"), (1, "one")]


@pytest.mark.parametrize("ending", ["succeed", "fail", "cancel", "cancel queued"])
def test_the_end_of_the_job_frees_the_bytes(database: Database, tmp_path: Path, ending: str):
    """While the job lives the sweep leaves its blocks alone; after its end, however that comes, they go."""
    store = ArtifactStore(f"file://{tmp_path}/artifacts", reserve=database.reserve_blob)
    job = submit_and_claim(database)
    sha256, _ = store.put_bytes(b"a block")
    record(database, job, 0, sha256=sha256)
    assert sweep_blobs(database, store, older_than_seconds=AT_ONCE) == 0
    with database.transaction() as repository:
        match ending:
            case "succeed":
                repository.succeed(job.id, job.lease_token, FILES)
            case "fail":
                repository.fail(job.id, job.lease_token, BROKEN)
            case "cancel":
                repository.request_cancel(job.id)
                repository.cancelled(job.id, job.lease_token)
            case _:
                repository.release(job.id, job.lease_token)
                repository.request_cancel(job.id)
    assert blocks(database, job) == []
    assert sweep_blobs(database, store, older_than_seconds=AT_ONCE) == 1
    assert not store.exists(sha256)
