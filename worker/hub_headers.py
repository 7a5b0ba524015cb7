"""Puts a hub model's folder together without its weights, so that `core.preflight` can read it like any other.

Small files and shards that were fetched before are linked. Of any other shard the header alone comes over; its file has
the shard's size and a hole where the weights would be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import DryRunFileInfo, constants, hf_hub_url
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, yet not listed in the package's __all__
    build_hf_headers,
    hf_raise_for_status,
    http_stream_backoff,
)

from core.preflight.outline import outline_bytes, write_outline

FIRST_BYTES = 1 << 16
"""Holds the whole header of most shards."""
CONNECTIONS = 4
TRIES = 3

ReadStart = Callable[[str, int], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFiles:
    """Where a model's files lie on the hub, at one commit."""

    repo: str
    commit: str
    endpoint: str
    token: str | None

    def read_start(self, name: str, count: int) -> bytes:
        """Returns a file's first bytes, fewer where it is shorter; raises errors of huggingface_hub and its client."""
        url = hf_hub_url(self.repo, name, revision=self.commit, endpoint=self.endpoint)
        headers = build_hf_headers(token=self.token or False)
        headers |= {"range": f"bytes=0-{count - 1}", "accept-encoding": "identity"}
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with http_stream_backoff("GET", url, headers=headers, timeout=timeout, max_retries=TRIES) as response:
            hf_raise_for_status(response)
            # A mirror may send the whole file all the same: no more of it is read than was asked for.
            return _first(response.iter_bytes(count), count)


def lay_out(shards: Iterable[DryRunFileInfo], snapshot: Path, folder: Path, read_start: ReadStart) -> None:
    """Fills an existing folder. snapshot: the small files. read_start: as `HubFiles.read_start`."""
    for path in snapshot.iterdir():
        if not path.name.endswith(".safetensors"):
            (folder / path.name).symlink_to(path.resolve())

    def place(shard: DryRunFileInfo) -> None:
        path = folder / shard.filename
        if shard.is_cached:
            path.symlink_to(Path(shard.local_path).resolve())
        else:
            _write_header(path, shard.file_size or 0, read_start)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(place, shards))


def _write_header(path: Path, size_bytes: int, read_start: ReadStart) -> None:
    start = read_start(path.name, FIRST_BYTES)
    if len(start) < (needed := outline_bytes(path.name, size_bytes, start)):
        start = read_start(path.name, needed)
    write_outline(path, size_bytes, [start])


def _first(chunks: Iterable[bytes], count: int) -> bytes:
    read = bytearray()
    for chunk in chunks:
        read += chunk
        if len(read) >= count:
            break
    return bytes(read[:count])
