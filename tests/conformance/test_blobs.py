"""The sweep of the object store: it takes what nothing refers to and nothing else, also beside an upload."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from store.artifacts import ArtifactStore
from store.errors import NotFoundError, StorageUnavailableError, WrongStateError
from store.jobs import Job, NewArtifact, NewCalibrationSet
from store.session import Database
from store.sweep import BATCH, sweep_blobs
from tests.conformance.samples import BROKEN, submit, submit_and_claim

AT_ONCE = -1.0
"""A grace that every blob has outlived."""


@pytest.fixture
def blobs(database: Database, tmp_path: Path) -> ArtifactStore:
    """A folder whose uploads are reserved in the database."""
    return ArtifactStore(f"file://{tmp_path}/artifacts", reserve=database.reserve_blob)


def publish(database: Database, blobs: ArtifactStore, *contents: bytes) -> tuple[Job, list[str]]:
    """Runs a job to its end with a file per content; returns it and the hashes."""
    job = submit_and_claim(database)
    hashes = [blobs.put_bytes(content)[0] for content in contents]
    files = [
        NewArtifact(name=f"{number}.bin", sha256=sha256, size_bytes=1, media_type="application/octet-stream")
        for number, sha256 in enumerate(hashes)
    ]
    with database.transaction() as repository:
        return repository.succeed(job.id, job.lease_token, files), hashes


def test_deleting_a_job_frees_only_what_was_its_own(database: Database, blobs: ArtifactStore):
    """Bytes that another job or a calibration set refers to stay; the others go, and a second sweep finds nothing."""
    first, (own, shared, text) = publish(database, blobs, b"own", b"shared", b"text")
    publish(database, blobs, b"shared")
    with database.transaction() as repository:
        new = NewCalibrationSet(owner_key_id="k", name="t", format="text", sha256=text, size_bytes=4, documents=1)
        repository.add_calibration_set(new)
    assert sweep_blobs(database, blobs, older_than_seconds=AT_ONCE) == 0
    with database.transaction() as repository:
        repository.delete_job(first.id)
    assert sweep_blobs(database, blobs, older_than_seconds=AT_ONCE) == 1
    assert (blobs.exists(own), blobs.exists(shared), blobs.exists(text)) == (False, True, True)
    assert sweep_blobs(database, blobs, older_than_seconds=AT_ONCE) == 0


def test_a_job_is_deleted_by_its_owner_and_only_when_it_is_over(database: Database):
    queued = submit(database, "key_a")
    with pytest.raises(WrongStateError), database.transaction() as repository:
        repository.delete_job(queued.id)
    running = submit_and_claim(database, "key_b")
    assert running.id == queued.id
    with pytest.raises(WrongStateError), database.transaction() as repository:
        repository.delete_job(running.id)
    with database.transaction() as repository:
        repository.fail(running.id, running.lease_token, BROKEN)
    with pytest.raises(NotFoundError), database.transaction() as repository:
        repository.delete_job(running.id, "key_b")
    with database.transaction() as repository:
        repository.delete_job(running.id, "key_a")
    with pytest.raises(NotFoundError), database.reading() as repository:
        repository.list_events(running.id)


def test_a_young_blob_is_kept(database: Database, blobs: ArtifactStore):
    """What was put or put again within the grace waits for the row that will refer to it."""
    sha256, _ = blobs.put_bytes(b"on its way")
    assert sweep_blobs(database, blobs, older_than_seconds=60) == 0
    assert blobs.exists(sha256)


def test_all_that_is_free_goes_in_one_sweep(database: Database, blobs: ArtifactStore):
    """However many transactions that takes."""
    hashes = [blobs.put_bytes(bytes([number]))[0] for number in range(2 * BATCH + 1)]
    assert sweep_blobs(database, blobs, older_than_seconds=AT_ONCE) == len(hashes)
    assert not any(blobs.exists(sha256) for sha256 in hashes)


def test_an_upload_beside_the_sweep_ends_with_the_bytes_there(database: Database, blobs: ArtifactStore):
    """An upload of bytes that a sweep is about to remove waits for it and then writes them again."""
    sha256, _ = blobs.put_bytes(b"contested")
    upload = threading.Thread(target=blobs.put_bytes, args=(b"contested",))
    with database.transaction() as repository:
        assert repository.take_unreferenced_blobs(AT_ONCE, 10) == (sha256,)
        upload.start()
        time.sleep(0.3)  # the upload has met the lock by now
        assert upload.is_alive()
        blobs.delete(sha256)
    upload.join(30)
    assert blobs.exists(sha256)
    assert sweep_blobs(database, blobs, older_than_seconds=60) == 0


def test_a_sweep_that_fails_half_way_is_made_up_for(database: Database, blobs: ArtifactStore):
    """Bytes removed before the failure are written again by the next upload; the rest goes with the next sweep."""
    hashes = [blobs.put_bytes(content)[0] for content in (b"one", b"two")]

    class Failing(ArtifactStore):
        def delete(self, sha256: str) -> None:
            """Removes the bytes and then the store is gone."""
            super().delete(sha256)
            raise StorageUnavailableError("The artifact store", "gone")

    failing = Failing(f"file://{blobs._folder}")
    with pytest.raises(StorageUnavailableError):
        sweep_blobs(database, failing, older_than_seconds=AT_ONCE)
    assert sorted(map(blobs.exists, hashes)) == [False, True]
    blobs.put_bytes(b"one")
    assert blobs.exists(hashes[0])
    assert sweep_blobs(database, blobs, older_than_seconds=AT_ONCE) == 2
