"""Uploading an artifact's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.artifacts import ArtifactStore
from worker.errors import AttemptStoppedError, StopReason
from worker.publish import media_type, upload


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An artifact's folder."""
    folder = tmp_path / "artifact"
    folder.mkdir()
    for name in ("model.safetensors", "config.json", "SHA256SUMS", "README.md"):
        (folder / name).write_text(f"bytes of {name}")
    return folder


def test_every_file_is_uploaded_under_its_hash_and_twice_is_once(folder: Path, tmp_path: Path):
    """Uploading is idempotent: the second time gives the same list and no new blob."""
    store = ArtifactStore(f"file://{tmp_path}/store")
    first = upload(store, folder, tries=1, go_on=lambda: None)
    assert [file.name for file in first] == ["README.md", "SHA256SUMS", "config.json", "model.safetensors"]
    for file in first:
        assert b"".join(store.open(file.sha256)) == (folder / file.name).read_bytes()
    blobs = sorted((tmp_path / "store").rglob("*"))
    assert upload(store, folder, tries=1, go_on=lambda: None) == first
    assert sorted((tmp_path / "store").rglob("*")) == blobs


def test_a_stop_is_heard_between_files(folder: Path, tmp_path: Path):
    """A cancel does not wait for the whole upload."""
    asked = 0

    def stop_at_the_third() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:  # before the first file, before its one part, before the second file
            raise AttemptStoppedError(StopReason.CANCEL)

    with pytest.raises(AttemptStoppedError):
        upload(ArtifactStore(f"file://{tmp_path}/store"), folder, tries=1, go_on=stop_at_the_third)
    assert len([path for path in (tmp_path / "store").rglob("*") if path.is_file()]) == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model-00001-of-00002.safetensors", "application/vnd.safetensors"),
        ("config.json", "application/json"),
        ("SHA256SUMS", "text/plain; charset=utf-8"),
        ("tokenizer.model", "application/octet-stream"),
    ],
)
def test_media_types(name: str, expected: str):
    assert media_type(Path(name)) == expected
