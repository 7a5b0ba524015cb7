"""The artifact store over a folder and over S3: same calls, same answers."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from store.artifacts import PART_BYTES, READ_CHUNK_BYTES, ArtifactStore
from store.errors import BlobCorruptError, NotFoundError, StorageUnavailableError
from tests.conftest import Bucket

ABSENT = "0" * 64


@pytest.fixture(params=["file", "s3"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    """An empty store: the test runs once on each kind."""
    if request.param == "file":
        return ArtifactStore(f"file://{tmp_path}/with%20space/artifacts")
    bucket: Bucket = request.getfixturevalue("bucket")
    return ArtifactStore(bucket.url, s3_endpoint=bucket.endpoint)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file of more than one upload part, whose length is no multiple of anything."""
    path = tmp_path / "large.bin"
    path.write_bytes(os.urandom(PART_BYTES + READ_CHUNK_BYTES + 12345))
    return path


def test_file_comes_back(artifacts: ArtifactStore, large: Path) -> None:
    """A stored file is named by its hash and read back in pieces, the same bytes."""
    content = large.read_bytes()
    sha256, size_bytes = artifacts.put_file(large)
    assert (sha256, size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert artifacts.size(sha256) == size_bytes
    assert artifacts.exists(sha256)
    pieces = list(artifacts.open(sha256))
    assert b"".join(pieces) == content
    assert len(pieces) > 1


def test_a_stream_of_known_hash_is_stored_in_parts(artifacts: ArtifactStore, large: Path) -> None:
    """However small its pieces are; nothing is asked of it where the bytes are there; other bytes are no blob."""
    content = large.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    step = 100_000
    pieces = [content[start : start + step] for start in range(0, len(content), step)]
    with pytest.raises(BlobCorruptError):
        artifacts.put_stream(sha256, len(content), [*pieces[:-1], bytes(len(pieces[-1]))])
    assert not artifacts.exists(sha256)
    artifacts.put_stream(sha256, len(content), iter(pieces))
    assert b"".join(artifacts.open(sha256)) == content
    untouched = iter(pieces)
    artifacts.put_stream(sha256, len(content), untouched)
    assert next(untouched) == pieces[0]


def test_a_fetch_can_be_stopped_between_pieces(artifacts: ArtifactStore, large: Path, tmp_path: Path) -> None:
    """Then no file appears and none is left."""
    sha256, _ = artifacts.put_file(large)
    folder = tmp_path / "fetched"
    folder.mkdir()
    seen = []

    def stop_at_the_second() -> None:
        seen.append(1)
        if len(seen) > 1:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        artifacts.fetch_to(sha256, folder / "large.bin", stop_at_the_second)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("start", "end"), [(0, 1), (1, 5), (0, None), (100, None), (READ_CHUNK_BYTES - 1, READ_CHUNK_BYTES + 1), (7, 7)]
)
def test_ranges(artifacts: ArtifactStore, large: Path, start: int, end: int | None) -> None:
    """A range gives exactly the bytes that slicing gives."""
    sha256, _ = artifacts.put_file(large)
    assert b"".join(artifacts.open(sha256, start, end)) == large.read_bytes()[start:end]


def test_pieces_are_bounded(artifacts: ArtifactStore, large: Path) -> None:
    """None holds more than some pieces' worth, however large the file is: a slow reader costs so much memory."""
    sha256, size_bytes = artifacts.put_file(large)
    assert max(len(piece) for piece in artifacts.open(sha256)) < 4 * READ_CHUNK_BYTES < size_bytes


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 2), (0, 6), (6, None)])
def test_ranges_outside_are_refused(artifacts: ArtifactStore, start: int, end: int | None) -> None:
    """A range that does not lie within the blob is a ValueError before any byte."""
    sha256, _ = artifacts.put_bytes(b"bytes")
    with pytest.raises(ValueError, match="within"):
        artifacts.open(sha256, start, end)


def test_storing_again_changes_nothing(artifacts: ArtifactStore, tmp_path: Path) -> None:
    """The same bytes, by either way, are one blob."""
    path = tmp_path / "small"
    path.write_bytes(b"the same")
    assert artifacts.put_bytes(b"the same") == artifacts.put_file(path) == artifacts.put_bytes(b"the same")


def test_empty_blob(artifacts: ArtifactStore, tmp_path: Path) -> None:
    """No bytes are bytes too."""
    sha256, size_bytes = artifacts.put_bytes(b"")
    assert size_bytes == 0
    assert list(artifacts.open(sha256)) == []
    artifacts.fetch_to(sha256, tmp_path / "empty")
    assert (tmp_path / "empty").read_bytes() == b""


def test_missing_blob_is_not_found(artifacts: ArtifactStore, tmp_path: Path) -> None:
    """Asking for an absent blob says so before anything is sent; deleting it is no error."""
    assert not artifacts.exists(ABSENT)
    for question in (
        lambda: artifacts.size(ABSENT),
        lambda: artifacts.open(ABSENT),
        lambda: artifacts.fetch_to(ABSENT, tmp_path / "absent"),
    ):
        with pytest.raises(NotFoundError):
            question()
    artifacts.delete(ABSENT)
    assert not (tmp_path / "absent").exists()


def test_delete(artifacts: ArtifactStore) -> None:
    """A deleted blob is gone, and can be stored again."""
    sha256, _ = artifacts.put_bytes(b"for a while")
    artifacts.delete(sha256)
    assert not artifacts.exists(sha256)
    artifacts.put_bytes(b"for a while")
    assert artifacts.exists(sha256)


def test_fetch_writes_a_whole_file(artifacts: ArtifactStore, large: Path, tmp_path: Path) -> None:
    """A fetched file is complete under its name, and nothing else lies beside it."""
    sha256, _ = artifacts.put_file(large)
    folder = tmp_path / "fetched"
    folder.mkdir()
    artifacts.fetch_to(sha256, folder / "copy.bin")
    assert [path.name for path in folder.iterdir()] == ["copy.bin"]
    assert (folder / "copy.bin").read_bytes() == large.read_bytes()


def test_names_that_are_no_hash_are_refused(artifacts: ArtifactStore) -> None:
    """Nothing outside the blobs can be named."""
    for name in ("", "../secret", "A" * 64, "0" * 63):
        with pytest.raises(ValueError, match="sha256"):
            artifacts.size(name)


def test_concurrent_puts_of_one_content(artifacts: ArtifactStore, large: Path) -> None:
    """Workers that store the same bytes at once end with one whole blob."""
    start = threading.Barrier(4)

    def put() -> tuple[str, int]:
        start.wait()
        return artifacts.put_file(large)

    with ThreadPoolExecutor(4) as pool:
        answers = {future.result() for future in [pool.submit(put) for _ in range(4)]}
    ((sha256, _),) = answers
    assert b"".join(artifacts.open(sha256)) == large.read_bytes()


def _damage(folder: Path, sha256: str, content: bytes) -> None:
    (blob,) = folder.rglob(sha256)
    blob.write_bytes(content)


def test_damaged_blob_is_not_fetched(tmp_path: Path) -> None:
    """Bytes that do not have the hash they are named by are refused, and no file appears."""
    artifacts = ArtifactStore(f"file://{tmp_path}/artifacts")
    sha256, _ = artifacts.put_bytes(b"right")
    _damage(tmp_path, sha256, b"wrong")
    with pytest.raises(BlobCorruptError) as caught:
        artifacts.fetch_to(sha256, tmp_path / "copy")
    assert caught.value.found == hashlib.sha256(b"wrong").hexdigest()
    assert not list(tmp_path.glob("copy*"))


def test_closed_pieces_hold_no_file(tmp_path: Path, large: Path) -> None:
    """Whoever stops in the middle, or before the first piece, leaves no file open."""
    artifacts = ArtifactStore(f"file://{tmp_path}/artifacts")
    sha256, _ = artifacts.put_file(large)

    def opened() -> int:
        return sum(file.path.endswith(sha256) for file in psutil.Process().open_files())

    asked = [artifacts.open(sha256, 5) for _ in range(3)]
    next(asked[0])
    assert opened() == len(asked)
    for pieces in asked:
        pieces.close()
    assert opened() == 0


def test_a_blob_that_is_cut_while_it_is_read(tmp_path: Path, large: Path) -> None:
    """Its end is an error, not the end of the bytes."""
    artifacts = ArtifactStore(f"file://{tmp_path}/artifacts")
    sha256, _ = artifacts.put_file(large)
    pieces = artifacts.open(sha256)
    first = next(pieces)
    _damage(tmp_path, sha256, first)
    with pytest.raises(StorageUnavailableError, match=f"ends at byte {len(first)}"):
        next(pieces)


def test_cut_blob_is_stored_anew(tmp_path: Path) -> None:
    """A blob that a crash cut short does not pass for the whole one."""
    artifacts = ArtifactStore(f"file://{tmp_path}/artifacts")
    sha256, _ = artifacts.put_bytes(b"whole")
    _damage(tmp_path, sha256, b"who")
    artifacts.put_bytes(b"whole")
    assert b"".join(artifacts.open(sha256)) == b"whole"
