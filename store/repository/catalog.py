"""What outlives jobs: calibration sets."""

from __future__ import annotations

from sqlalchemy import select

from store.errors import NotFoundError
from store.ids import IdPrefix, new_id
from store.jobs import CalibrationSet, NewCalibrationSet
from store.repository.base import RepositoryBase, owned
from store.repository.clock import database_time
from store.repository.rows import calibration_set_from_row
from store.tables import calibration_sets


class CatalogPart(RepositoryBase):
    """The part of the repository that the calibration routes use."""

    def add_calibration_set(self, new: NewCalibrationSet) -> CalibrationSet:
        """Stores the description of a text whose bytes are in the object store; the owner's earlier one is returned
        where the same bytes were stored before, under the name that they got then.
        """
        statement = self._insert(calibration_sets).values(
            id=new_id(IdPrefix.CALIBRATION_SET),
            owner_key_id=new.owner_key_id,
            name=new.name,
            format=new.format,
            sha256=new.sha256,
            size_bytes=new.size_bytes,
            documents=new.documents,
            created_at=database_time(),
        )
        self._connection.execute(statement.on_conflict_do_nothing(index_elements=["owner_key_id", "sha256"]))
        found = select(calibration_sets).where(
            calibration_sets.c.owner_key_id == new.owner_key_id, calibration_sets.c.sha256 == new.sha256
        )
        return calibration_set_from_row(self._connection.execute(found).one())

    def get_calibration_set(self, set_id: str, owner: str | None = None) -> CalibrationSet:
        """Raises NotFoundError where there is no such set, or it is another owner's."""
        statement = owned(select(calibration_sets), calibration_sets, owner).where(calibration_sets.c.id == set_id)
        row = self._connection.execute(statement).one_or_none()
        if row is None:
            raise NotFoundError("calibration set", set_id)
        return calibration_set_from_row(row)

    def list_calibration_sets(self, owner: str | None = None, limit: int = 1000) -> tuple[CalibrationSet, ...]:
        """Returns the newest sets first."""
        statement = owned(select(calibration_sets), calibration_sets, owner)
        newest = statement.order_by(calibration_sets.c.created_at.desc(), calibration_sets.c.id.desc()).limit(limit)
        return tuple(calibration_set_from_row(row) for row in self._connection.execute(newest))
