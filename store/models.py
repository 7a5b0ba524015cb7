"""What is known of uploaded models: plain values, no SQL. The bytes of their files lie in the object store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """One file of an uploaded model, under its sha256 in the object store. name: a base name, without any folder."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUploadedModel:
    """A model whose files are already in the object store."""

    owner_key_id: str
    name: str
    model_type: str
    files: tuple[ModelFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedModel:
    """A stored model, named by its content: sha256 is that of `checksums` over its files, size_bytes their sum.

    expires_at: when it goes, unless it is pinned. expiry_warned_at: when its owner was told of that.
    """

    id: str
    owner_key_id: str
    name: str
    model_type: str
    sha256: str
    size_bytes: int
    files: int
    created_at: datetime
    pinned: bool
    expires_at: datetime | None
    expiry_warned_at: datetime | None


def checksums(files: Iterable[ModelFile]) -> str:
    """Returns what `sha256sum *` prints in the model's folder, by name: its hash names the model."""
    return "".join(f"{file.sha256}  {file.name}\n" for file in sorted(files, key=lambda file: file.name))


def content_sha256(files: Iterable[ModelFile]) -> str:
    """Returns the hash that names a model with these files."""
    return hashlib.sha256(checksums(files).encode()).hexdigest()
