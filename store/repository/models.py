"""Uploaded models and their files, as their owners and the jobs on them see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, select

from store.ids import IdPrefix, new_id
from store.kept import KeptKind
from store.models import ModelFile, NewUploadedModel, UploadedModel, content_sha256
from store.repository.base import owned
from store.repository.clock import database_time
from store.repository.kept import Kept, KeptPart
from store.tables import jobs, model_files, uploaded_models

if TYPE_CHECKING:
    from sqlalchemy import Row

MODELS = Kept(
    kind=KeptKind.UPLOADED_MODEL,
    table=uploaded_models,
    path="/v1/uploaded-models",
    used_by=jobs.c.uploaded_model_id,
)


class ModelPart(KeptPart):
    """The part of the repository that uploads of models use."""

    def add_uploaded_model(self, new: NewUploadedModel) -> UploadedModel:
        """Stores the description of a model; the owner's earlier one is returned where the same files were stored
        before, under the name that it got then.
        """
        sha256 = content_sha256(new.files)
        statement = self._insert(uploaded_models).values(
            id=new_id(IdPrefix.UPLOADED_MODEL),
            owner_key_id=new.owner_key_id,
            name=new.name,
            model_type=new.model_type,
            sha256=sha256,
            size_bytes=sum(file.size_bytes for file in new.files),
            created_at=database_time(),
        )
        stored = self._connection.execute(
            statement.on_conflict_do_nothing(index_elements=["owner_key_id", "sha256"]).returning(uploaded_models.c.id)
        ).scalar_one_or_none()
        if stored is not None:
            rows = [
                {"model_id": stored, "name": file.name, "sha256": file.sha256, "size_bytes": file.size_bytes}
                for file in new.files
            ]
            self._connection.execute(insert(model_files), rows)
        found = select(uploaded_models).where(
            uploaded_models.c.owner_key_id == new.owner_key_id, uploaded_models.c.sha256 == sha256
        )
        return self._model(self._connection.execute(found).one())

    def get_uploaded_model(self, model_id: str, owner: str | None = None) -> UploadedModel:
        """Raises NotFoundError where there is no such model, or it is another owner's."""
        return self._model(self._kept_row(MODELS, model_id, owner))

    def find_uploaded_model(self, owner: str, sha256: str) -> UploadedModel | None:
        """Returns an owner's model of that content; None where there is none."""
        statement = select(uploaded_models).where(
            uploaded_models.c.owner_key_id == owner, uploaded_models.c.sha256 == sha256
        )
        row = self._connection.execute(statement).one_or_none()
        return None if row is None else self._model(row)

    def list_uploaded_models(self, owner: str | None = None, limit: int = 1000) -> tuple[UploadedModel, ...]:
        """Returns the newest models first."""
        counted = (
            select(model_files.c.model_id, func.count().label("files")).group_by(model_files.c.model_id).subquery()
        )
        statement = select(uploaded_models, counted.c.files).join(counted, counted.c.model_id == uploaded_models.c.id)
        newest = owned(statement, uploaded_models, owner).order_by(
            uploaded_models.c.created_at.desc(), uploaded_models.c.id.desc()
        )
        return tuple(_from_row(row, row.files) for row in self._connection.execute(newest.limit(limit)))

    def list_model_files(self, model_id: str) -> tuple[ModelFile, ...]:
        """Returns a model's files by name; none where there is no such model."""
        statement = select(model_files).where(model_files.c.model_id == model_id).order_by(model_files.c.name)
        return tuple(
            ModelFile(name=row.name, sha256=row.sha256, size_bytes=row.size_bytes)
            for row in self._connection.execute(statement)
        )

    def keep_uploaded_model(self, model_id: str, changes: Mapping[str, Any], owner: str | None = None) -> UploadedModel:
        """Sets some of pinned and expires_at; raises NotFoundError."""
        return self._model(self._keep(MODELS, model_id, changes, owner))

    def delete_uploaded_model(self, model_id: str, owner: str | None = None) -> None:
        """Removes a model for good; jobs that are over forget it, and cannot be retried.

        Raises NotFoundError, or WrongStateError where a job that is not over needs it.
        """
        self._delete_kept(MODELS, model_id, owner)

    def _model(self, row: Row[Any]) -> UploadedModel:
        counted = select(func.count()).where(model_files.c.model_id == row.id)
        return _from_row(row, self._connection.execute(counted).scalar_one())


def _from_row(row: Row[Any], files: int) -> UploadedModel:
    return UploadedModel(
        id=row.id,
        owner_key_id=row.owner_key_id,
        name=row.name,
        model_type=row.model_type,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        files=files,
        created_at=row.created_at,
        pinned=row.pinned,
        expires_at=row.expires_at,
        expiry_warned_at=row.expiry_warned_at,
    )
