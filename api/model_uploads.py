"""Turns a received archive into an uploaded model: checked as a folder would be, its files in the store, one row.

The archive is read twice: for hashes, headers and every refusal, then once more into the store. So nothing of an
archive that is refused gets there, and nothing of one is ever unpacked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from api.errors import InvalidRequestError
from api.problems import FieldProblem
from core.errors import ModelProblem, ModelRefusedError
from core.preflight.archive import ModelArchive
from core.preflight.outline import write_outline
from core.preflight.resources import check_disk
from core.preflight.source import inspect_source
from store.errors import QuotaExceededError
from store.models import ModelFile, NewUploadedModel, UploadedModel, content_sha256

if TYPE_CHECKING:
    from api.deps import Principal
    from api.services import Services
    from api.uploads import Upload
    from store.artifacts import ArtifactStore


def store_model(services: Services, principal: Principal, upload: Upload) -> UploadedModel:
    """Returns the stored model; the owner's earlier one where the archive has the very files of that.

    Raises InvalidRequestError naming the member, QuotaExceededError, InsufficientResourcesError before anything is
    stored, StorageUnavailableError.
    """
    with (
        _about_the_archive(),
        ModelArchive(upload.file, max_bytes=services.settings.max_model_bytes) as archive,
        services.outlines.draft() as draft,
    ):
        files = tuple(_outlined(archive, draft))
        new = NewUploadedModel(
            owner_key_id=principal.owner_id,
            name=upload.name,
            model_type=inspect_source(draft).model_type,
            files=files,
        )
        known = _known(services, principal, new, archive.total_bytes)
        if known is not None:
            return known
        _put(services.artifacts, archive, files)
        with services.database.transaction() as repository:
            stored = repository.add_uploaded_model(new)
            if principal.quotas.amounts:
                repository.require_quota(principal.owner_id)
        services.outlines.adopt(draft, stored.sha256)
    return stored


def require_room(services: Services, principal: Principal, announced_bytes: int, folder: Path) -> None:
    """Refuses an upload before its first byte: the disk is too full for it, or the owner's quota is used up.

    announced_bytes: of the body, 0 where that is not known. Raises InsufficientResourcesError, QuotaExceededError.
    """
    check_disk(folder, announced_bytes)
    _require_quota(services, principal, 0)


def _outlined(archive: ModelArchive, draft: Path) -> Iterator[ModelFile]:
    for file, pieces in archive.read():
        digest = hashlib.sha256()
        write_outline(draft / file.name, file.size_bytes, _hashed(pieces, digest))
        yield ModelFile(name=file.name, sha256=digest.hexdigest(), size_bytes=file.size_bytes)


def _hashed(pieces: Iterator[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    for piece in pieces:
        digest.update(piece)
        yield piece


def _known(services: Services, principal: Principal, new: NewUploadedModel, total_bytes: int) -> UploadedModel | None:
    with services.database.reading() as repository:
        known = repository.find_uploaded_model(principal.owner_id, content_sha256(new.files))
    if known is None:
        _require_quota(services, principal, total_bytes)
    return known


def _require_quota(services: Services, principal: Principal, more_bytes: int) -> None:
    """Looks before the bytes are there; the count that decides is taken with the row."""
    allowed = principal.quotas.model_bytes
    if allowed is None:
        return
    with services.database.reading() as repository:
        used = repository.usage(principal.owner_id).model_bytes + more_bytes
    if used > allowed:
        raise QuotaExceededError("model_bytes", allowed, used)


def _put(artifacts: ArtifactStore, archive: ModelArchive, files: tuple[ModelFile, ...]) -> None:
    if artifacts.folder is not None:
        check_disk(artifacts.folder, archive.total_bytes)
    known = {file.name: file for file in files}
    for member, pieces in archive.read():
        file = known[member.name]
        artifacts.put_stream(file.sha256, file.size_bytes, pieces)


@contextmanager
def _about_the_archive() -> Iterator[None]:
    """Points a refusal of the model at the file that was sent."""
    try:
        yield
    except ModelRefusedError as error:
        status = 413 if error.problem is ModelProblem.ARCHIVE_TOO_LARGE else 422
        problem = FieldProblem(pointer="#/file", detail=error.detail)
        raise InvalidRequestError(error.code, error.detail, problem, status=status, hint=error.hint) from error
