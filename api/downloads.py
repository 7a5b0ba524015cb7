"""Builds the answers that carry bytes: one artifact with conditions and ranges, or all of a job's files as one zip.

Every answer is streamed and says its length beforehand; a blob that fails on the way breaks the connection, so that a
short body is never taken for a whole one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from contextlib import closing
from pathlib import PurePosixPath
from typing import cast
from urllib.parse import quote

from starlette.concurrency import iterate_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from zipstream import ZIP_STORED, ZipStream  # type: ignore[import-untyped]  # it ships no types

from api.conditional import (
    ByteRange,
    not_modified,
    repr_digest,
    requested_range,
    require_match,
    strong_etag,
    weak_etag,
)
from store.artifacts import ArtifactStore
from store.jobs import Artifact, Job, model_name

CHECKSUMS = "SHA256SUMS"
# Bytes under a sha256 name never change; who may read them can.
CACHE_CONTROL = "private, max-age=31536000, immutable"


class PiecesResponse(StreamingResponse):
    """Sends pieces that a thread makes; of each answer at most one is in memory, however slowly it is read."""

    def __init__(self, pieces: Generator[bytes], status: int, headers: Mapping[str, str], media_type: str) -> None:
        super().__init__(_one_at_a_time(pieces), status, headers, media_type)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Closes what the pieces come from, also where the client went away."""
        with closing(self._pieces):
            await super().__call__(scope, receive, send)


async def _one_at_a_time(pieces: Generator[bytes]) -> AsyncIterator[bytes]:
    async for piece in iterate_in_threadpool(pieces):
        yield piece
        # A server takes a piece at once and waits with the next one until the connection has room: let that be nothing.
        yield b""


def artifact_response(artifact: Artifact, store: ArtifactStore, request_headers: Headers, *, head: bool) -> Response:
    """Returns 200, 206 or 304 for one file; raises PreconditionFailedError or RangeNotSatisfiableError."""
    etag = strong_etag(artifact.sha256)
    require_match(request_headers, etag)
    headers = {
        "ETag": etag,
        "Repr-Digest": repr_digest(artifact.sha256),
        "Accept-Ranges": "bytes",
        "Cache-Control": CACHE_CONTROL,
        "Content-Disposition": attachment(PurePosixPath(artifact.name).name),
    }
    if not_modified(request_headers, etag):
        return Response(status_code=304, headers=headers)
    part = None if head else requested_range(request_headers, etag, artifact.size_bytes)
    chosen = part or ByteRange(0, artifact.size_bytes)
    headers["Content-Length"] = str(chosen.end - chosen.start)
    if part is not None:
        headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{artifact.size_bytes}"
    status = 200 if part is None else 206
    if head:
        return Response(status_code=status, headers=headers, media_type=artifact.media_type)
    pieces = store.open(artifact.sha256, chosen.start, chosen.end)
    return PiecesResponse(pieces, status, headers, artifact.media_type)


def archive_response(
    job: Job, artifacts: Sequence[Artifact], store: ArtifactStore, request_headers: Headers, *, head: bool
) -> Response:
    """Returns all files as one uncompressed zip: weights do not compress, and so the length is known.

    The tag is weak: entries carry the time of the download, so two archives are equal in content only.
    """
    etag = weak_etag(hashlib.sha256(checksum_lines(artifacts, every=True).encode()).hexdigest())
    folder = folder_name(job)
    headers = {
        "ETag": etag,
        "Accept-Ranges": "none",
        "Content-Disposition": attachment(f"{folder}.zip"),
    }
    if not_modified(request_headers, etag):
        return Response(status_code=304, headers=headers)
    archive = _archive(folder, artifacts, store)
    headers["Content-Length"] = str(len(archive))
    if head:
        return Response(headers=headers, media_type="application/zip")
    return PiecesResponse(cast("Generator[bytes]", iter(archive)), 200, headers, "application/zip")


def _archive(folder: str, artifacts: Sequence[Artifact], store: ArtifactStore) -> ZipStream:
    archive = ZipStream(compress_type=ZIP_STORED, sized=True)
    for artifact in artifacts:
        archive.add(_lazily(store, artifact), f"{folder}/{artifact.name}", size=artifact.size_bytes)
    return archive


def _lazily(store: ArtifactStore, artifact: Artifact) -> Generator[bytes]:
    """Opens a file when its turn in the archive has come, not before."""
    yield from store.open(artifact.sha256)


def checksum_lines(artifacts: Sequence[Artifact], *, every: bool = False) -> str:
    """Returns what `sha256sum --check` reads. every: with the line of the checksum file itself."""
    listed = [artifact for artifact in artifacts if every or artifact.name != CHECKSUMS]
    return "".join(f"{artifact.sha256}  {artifact.name}\n" for artifact in sorted(listed, key=lambda item: item.name))


def folder_name(job: Job) -> str:
    """Returns a short name for the folder in the archive: model, method, grid and the end of the job's id."""
    grid = job.spec["quantization"]
    base = PurePosixPath(model_name(job.spec)).name
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", base).strip(".-")
    return f"{safe or 'model'}_{grid['method']}_w{grid['bits']}_g{grid['group_size']}_{job.id[-6:]}"


def attachment(file_name: str) -> str:
    """Returns a Content-Disposition that saves under the name and never opens in the page (RFC 6266)."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", file_name)
    extended = "" if plain == file_name else f"; filename*=UTF-8''{quote(file_name, safe='')}"
    return f'attachment; filename="{plain}"{extended}'
