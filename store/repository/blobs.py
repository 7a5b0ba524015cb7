"""Which blobs of the object store somebody counts on. The bytes themselves are `store.artifacts`' affair.

A writer reserves a blob before it looks whether the bytes are there; the sweep takes a blob's row before it removes
the bytes and keeps the lock until they are gone. So a writer either keeps the sweep away or comes after it, and then
finds no bytes and writes them again.
"""

from __future__ import annotations

from sqlalchemy import delete, exists, select

from store.repository.base import RepositoryBase
from store.repository.clock import database_time
from store.tables import artifacts, blobs, calibration_sets, checkpoints, model_files


class BlobPart(RepositoryBase):
    """The part of the repository that uploads and the sweep of the object store use."""

    def reserve_blob(self, sha256: str) -> None:
        """Says that a row will refer to the blob soon; waits while the sweep removes its bytes."""
        statement = self._insert(blobs).values(sha256=sha256, reserved_at=database_time())
        renewed = {"reserved_at": statement.excluded.reserved_at}
        self._connection.execute(statement.on_conflict_do_update(index_elements=["sha256"], set_=renewed))

    def take_unreferenced_blobs(self, older_than_seconds: float, limit: int) -> tuple[str, ...]:
        """Removes the rows of up to limit blobs that nothing refers to, and returns their hashes.

        older_than_seconds: since the last reservation; it must exceed the time from an upload to its publishing. The
        caller removes the bytes before it commits.
        """
        held = exists().where(artifacts.c.sha256 == blobs.c.sha256)
        used = exists().where(calibration_sets.c.sha256 == blobs.c.sha256)
        needed = exists().where(checkpoints.c.sha256 == blobs.c.sha256)
        uploaded = exists().where(model_files.c.sha256 == blobs.c.sha256)
        free = (
            select(blobs.c.sha256)
            .where(blobs.c.reserved_at < database_time(-older_than_seconds), ~held, ~used, ~needed, ~uploaded)
            .order_by(blobs.c.reserved_at)
            .limit(limit)
            .with_for_update(of=blobs, skip_locked=True)
        )
        statement = delete(blobs).where(blobs.c.sha256.in_(free)).returning(blobs.c.sha256)
        return tuple(self._connection.execute(statement).scalars())
