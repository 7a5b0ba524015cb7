"""Removes the bytes of blobs that no row refers to: what deleted jobs, lost uploads and zombies leave behind."""

from __future__ import annotations

from store.artifacts import ArtifactStore
from store.session import Database

# A transaction stays open while the object store removes this many blobs.
BATCH = 8


def sweep_blobs(database: Database, artifacts: ArtifactStore, *, older_than_seconds: float) -> int:
    """Removes every blob that nothing refers to and nobody reserved of late; returns how many.

    Several may run at once. Raises StorageUnavailableError; what was not removed then is found by the next sweep.
    """
    removed = 0
    while True:
        with database.transaction() as repository:
            taken = repository.take_unreferenced_blobs(older_than_seconds, BATCH)
            for sha256 in taken:
                artifacts.delete(sha256)
        removed += len(taken)
        if len(taken) < BATCH:
            return removed
