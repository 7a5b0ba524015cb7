"""Puts a model into the store as an upload of an archive does, without an API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from store.artifacts import ArtifactStore
from store.models import ModelFile, NewUploadedModel, UploadedModel
from store.session import Database


def put_files(artifacts: ArtifactStore, folder: Path) -> tuple[ModelFile, ...]:
    """Stores a folder's files and returns them by name."""
    files = []
    for path in sorted(folder.iterdir()):
        sha256, size_bytes = artifacts.put_file(path)
        files.append(ModelFile(name=path.name, sha256=sha256, size_bytes=size_bytes))
    return tuple(files)


def put_model(database: Database, artifacts: ArtifactStore, folder: Path, owner: str) -> UploadedModel:
    """Stores a model under its folder's name."""
    files = put_files(artifacts, folder)
    new = NewUploadedModel(owner_key_id=owner, name=folder.name, model_type="llama", files=files)
    with database.transaction() as repository:
        return repository.add_uploaded_model(new)


def source_of_upload(model: UploadedModel) -> dict[str, Any]:
    """Returns how a job's spec names it."""
    return {"source": "upload", "id": model.id, "name": model.name, "sha256": model.sha256}
