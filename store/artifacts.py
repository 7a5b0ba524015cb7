"""Keeps files under the hash of their bytes, in a folder (file://) or an S3-compatible bucket (s3://bucket/prefix).

A blob is written once, whole or not at all, and never changes; who refers to it is the database's affair.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from store.errors import BlobCorruptError, NotFoundError, StorageUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from obstore.store import ClientConfig, RetryConfig

    from store.settings import StoreSettings

READ_CHUNK_BYTES = 512 * 1024
"""Of memory for each reader, however slow; half as much takes a quarter more processor time."""
PART_BYTES = 8 * 1024 * 1024
PARALLEL_PARTS = 4
_SHA256 = re.compile(r"[0-9a-f]{64}")

# A download may take hours, so the whole request has no short limit; a connection that says nothing does.
_CLIENT: ClientConfig = {"connect_timeout": "5s", "read_timeout": "30s", "timeout": "12h"}
_RETRY: RetryConfig = {"max_retries": 4, "retry_timeout": timedelta(seconds=30)}


class ArtifactStore:
    """Blobs by sha256. Safe to share between threads. Every method raises StorageUnavailableError on a dead store."""

    def __init__(
        self, url: str, *, s3_endpoint: str | None = None, reserve: Callable[[str], None] | None = None
    ) -> None:
        """s3_endpoint: URL of an S3-compatible server; credentials and region come from AWS_* as usual.

        reserve: called with a blob's hash before it is looked for or written, to keep the sweep away from it; None
        where none sweeps.
        """
        self._reserve = reserve
        parts = urlsplit(url)
        self._folder = Path(unquote(parts.path)) if parts.scheme == "file" else None
        if self._folder is not None:
            self._store: LocalStore | S3Store = LocalStore(self._folder, mkdir=True)
        else:
            self._store = _s3_store(parts.netloc, parts.path.strip("/"), s3_endpoint)

    @classmethod
    def from_settings(cls, settings: StoreSettings, reserve: Callable[[str], None] | None = None) -> ArtifactStore:
        """Returns the store that the settings name."""
        return cls(settings.artifacts_url, s3_endpoint=settings.s3_endpoint, reserve=reserve)

    @property
    def folder(self) -> Path | None:
        """Returns where blobs lie on this machine; None for a bucket."""
        return self._folder

    def put_file(self, path: Path, go_on: Callable[[], None] = lambda: None) -> tuple[str, int]:
        """Stores a file's bytes and returns (sha256, size). Reads it in pieces; a blob that is there stays.

        Large files go in parts, each tried again by itself. go_on is called before each part and may raise: what was
        sent so far is given up then, and nothing is left behind. Raises BlobCorruptError where the file changed while
        it was read.
        """
        sha256, size_bytes = _hash_file(path)
        self.put_stream(sha256, size_bytes, _parts(path, go_on))
        return sha256, size_bytes

    def put_stream(self, sha256: str, size_bytes: int, pieces: Iterable[bytes]) -> None:
        """Stores bytes whose hash and length are known, as they come; they are not asked for where they are there.

        What pieces raises gives up what was sent so far. Raises BlobCorruptError where they have another hash.
        """
        if self._holds(sha256, size_bytes):
            return
        found = self._send(sha256, size_bytes, pieces)
        if found != sha256:
            self.delete(sha256)
            raise BlobCorruptError(sha256, found)
        self._sync(sha256)

    def _send(self, sha256: str, size_bytes: int, pieces: Iterable[bytes]) -> str:
        """Uploads bytes under a name; returns the hash of what was sent."""
        digest = hashlib.sha256()

        def hashed() -> Iterator[bytes]:
            for piece in pieces:
                digest.update(piece)
                yield piece

        small = size_bytes <= PART_BYTES
        with _answers():
            # One request for what fits into one.
            content = b"".join(hashed()) if small else hashed()
            obstore.put(self._store, _key(sha256), content, chunk_size=PART_BYTES, max_concurrency=PARALLEL_PARTS)
        return digest.hexdigest()

    def put_bytes(self, content: bytes) -> tuple[str, int]:
        """Stores bytes that fit in memory and returns (sha256, size)."""
        sha256 = hashlib.sha256(content).hexdigest()
        if not self._holds(sha256, len(content)):
            with _answers():
                obstore.put(self._store, _key(sha256), content)
            self._sync(sha256)
        return sha256, len(content)

    def size(self, sha256: str) -> int:
        """Returns the blob's length in bytes; raises NotFoundError."""
        with _answers(sha256):
            return int(obstore.head(self._store, _key(sha256))["size"])

    def exists(self, sha256: str) -> bool:
        """Whether the whole blob is there."""
        try:
            self.size(sha256)
        except NotFoundError:
            return False
        return True

    def open(self, sha256: str, start: int = 0, end: int | None = None) -> Generator[bytes]:
        """Yields the bytes from start up to and without end, in pieces of about READ_CHUNK_BYTES.

        The blob is opened before the first piece is asked for, so that NotFoundError comes before any answer is
        begun, and closed with the generator. Raises ValueError for a range that does not lie within the blob.
        """
        size_bytes = self.size(sha256)
        stop = size_bytes if end is None else end
        if not 0 <= start <= stop <= size_bytes:
            raise ValueError(f"bytes {start} to {stop} do not lie within {size_bytes}")
        if self._folder is None:
            pieces = _object_pieces(self._store, sha256, start, stop)
        else:
            pieces = _file_pieces(self._folder / _key(sha256), sha256, start, stop)
        next(pieces)
        return pieces

    def signed_url(self, sha256: str, seconds: int) -> str | None:
        """Returns a URL under which anybody may read the blob for so long; None where the store is a folder.

        Raises NotFoundError. The bytes do not pass through us, and neither do their headers.
        """
        if isinstance(self._store, LocalStore):
            return None
        self.size(sha256)
        return obstore.sign(self._store, "GET", _key(sha256), timedelta(seconds=seconds))

    def fetch_to(
        self,
        sha256: str,
        path: Path,
        go_on: Callable[[], None] = lambda: None,
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Writes the blob to a file, which appears only once its hash is verified; raises BlobCorruptError.

        go_on: is called before each piece and may raise. on_bytes: is told the length of each piece that was written.
        """
        partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
        digest = hashlib.sha256()
        try:
            with partial.open("xb") as file:
                for piece in self.open(sha256):
                    go_on()
                    digest.update(piece)
                    file.write(piece)
                    on_bytes(len(piece))
                file.flush()
                os.fsync(file.fileno())
            if digest.hexdigest() != sha256:
                raise BlobCorruptError(sha256, digest.hexdigest())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def delete(self, sha256: str) -> None:
        """Removes the blob; nothing happens where it is gone already."""
        try:
            with _answers(sha256):
                obstore.delete(self._store, _key(sha256))
        except NotFoundError:
            return

    def _holds(self, sha256: str, size_bytes: int) -> bool:
        """Whether a blob that is about to be put is there already; it is reserved first, or a sweep could take it."""
        if self._reserve is not None:
            self._reserve(sha256)
        try:
            return self.size(sha256) == size_bytes
        except NotFoundError:
            return False

    def _sync(self, sha256: str) -> None:
        """Makes a local blob survive a power cut before a row refers to it; a bucket answers only when it has."""
        if self._folder is None:
            return
        blob = self._folder / _key(sha256)
        for path in (blob, blob.parent, blob.parent.parent):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _s3_store(bucket: str, prefix: str, endpoint: str | None) -> S3Store:
    plain = endpoint is not None and endpoint.startswith("http://")
    options: ClientConfig = {**_CLIENT, "allow_http": plain}
    if endpoint is None:
        return S3Store(bucket, prefix=prefix or None, client_options=options, retry_config=_RETRY)
    return S3Store(
        bucket,
        prefix=prefix or None,
        client_options=options,
        retry_config=_RETRY,
        endpoint=endpoint,
        # Servers other than Amazon's are rarely set up with one host name per bucket.
        virtual_hosted_style_request=False,
    )


def _key(sha256: str) -> str:
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"{sha256!r} is not a sha256 in hexadecimal digits")
    return f"blobs/{sha256[:2]}/{sha256}"


def _parts(path: Path, go_on: Callable[[], None]) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(PART_BYTES):
            go_on()
            yield part


def _hash_file(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return digest.hexdigest(), file.tell()


@contextmanager
def _answers(sha256: str = "") -> Iterator[None]:
    """Turns the library's errors into the store's: missing, or not answering."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError("blob", sha256) from error
    except (BaseError, OSError) as error:
        lines = str(error).strip().splitlines()
        raise StorageUnavailableError("The artifact store", lines[0] if lines else type(error).__name__) from error


def _file_pieces(path: Path, sha256: str, start: int, stop: int) -> Generator[bytes]:
    """Yields nothing once the file is open, then its bytes: read as a file, since the library takes 8 KiB at a time."""
    with _answers(sha256), path.open("rb", buffering=0) as file:
        yield b""
        file.seek(start)
        while start < stop:
            piece = file.read(min(READ_CHUNK_BYTES, stop - start))
            if not piece:
                raise StorageUnavailableError("The artifact store", f"{sha256} ends at byte {start}, before {stop}")
            start += len(piece)
            yield piece


def _object_pieces(store: LocalStore | S3Store, sha256: str, start: int, stop: int) -> Generator[bytes]:
    """Yields nothing once the object store has answered, then the bytes."""
    with _answers(sha256):
        if start == stop:
            yield b""
            return
        result = obstore.get(store, _key(sha256), options={"range": (start, stop)})
        yield b""
        for piece in result.stream(min_chunk_size=READ_CHUNK_BYTES):
            yield bytes(piece)
