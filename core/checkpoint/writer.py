"""Gathers tensors and files of a finished run into an artifact folder that appears only when it is whole.

Tensors of files on disk are copied as raw bytes, one chunk in memory at a time. The same inputs added in the same
order give the same bytes. What the tensors and texts say is `core.formats`' work.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

import torch

from core.checkpoint.checksums import SUMS_FILE, write_sha256sums
from core.checkpoint.durable import Bytes, file_chunks, sync_folder, write_stream
from core.checkpoint.layout import (
    LayoutError,
    TensorEntry,
    build_header,
    read_entries,
    read_tensor,
    storage_order,
    tensor_bytes,
    tensor_nbytes,
)
from core.checkpoint.streams import StreamWriter
from core.errors import ArtifactInvalidError, InvalidConfigError
from core.preflight.model_files import INDEX_FILE, SINGLE_FILE
from core.preflight.resources import MAX_SHARD_BYTES

PARTIAL_MARK: Final = ".partial-"
METADATA: Final = {"format": "pt"}
"""transformers refuses a safetensors file that does not say this."""


@dataclass(frozen=True, slots=True)
class Transposed:
    """A matrix of a file that is written as its transpose; read only while it is written."""

    entry: TensorEntry


Source: TypeAlias = TensorEntry | Transposed | torch.Tensor


@dataclass(frozen=True, slots=True)
class _Pending:
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    source: Source

    @property
    def nbytes(self) -> int:
        return tensor_nbytes(self.dtype, self.shape)


class ArtifactWriter:
    """Builds `out_dir` beside its place and renames it there in `commit`; without `commit` nothing is left behind.

    Tensors are written in `commit`, into shards of at most max_shard_bytes of data each (a single larger tensor has a
    shard of its own), in the order in which they were added. An out_dir that exists and is not empty is refused with
    InvalidConfigError. One writer at a time per out_dir.
    """

    def __init__(self, out_dir: Path, *, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
        self._out_dir = out_dir
        self._max_shard_bytes = max_shard_bytes
        self._pending: dict[str, _Pending] = {}
        self._sha256: dict[str, str] = {}
        self._nested: dict[str, ArtifactWriter] = {}
        self._refuse_taken_place()
        out_dir.parent.mkdir(parents=True, exist_ok=True)
        for leftover in out_dir.parent.glob(f"{out_dir.name}{PARTIAL_MARK}*"):
            shutil.rmtree(leftover)
        self._partial_dir = out_dir.with_name(f"{out_dir.name}{PARTIAL_MARK}{secrets.token_hex(4)}")
        self._partial_dir.mkdir()

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Removes what was not committed."""
        shutil.rmtree(self._partial_dir, ignore_errors=True)

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """Returns the names of all tensors added so far, sorted."""
        return tuple(sorted(self._pending))

    @property
    def sha256(self) -> dict[str, str]:
        """Returns the SHA-256 of every file written so far, by relative path; each was hashed while it was written."""
        nested = self._nested.items()
        inside = {f"{name}/{file}": sha256 for name, writer in nested for file, sha256 in writer.sha256.items()}
        return self._sha256 | inside

    def add_tensor(self, name: str, tensor: torch.Tensor) -> None:
        """Adds a tensor, which is held in memory until `commit`: meant for the few that no file holds as they are."""
        self._add(_Pending(name, tensor.dtype, tuple(tensor.shape), tensor))

    def add_entry(self, entry: TensorEntry, *, name: str | None = None) -> None:
        """Adds a tensor of a file (`CheckpointReader.entry`), under its own or another name, without reading it."""
        self._add(_Pending(name or entry.name, entry.dtype, entry.shape, entry))

    def add_transposed(self, entry: TensorEntry, *, name: str) -> None:
        """Adds the transpose of a file's matrix under another name; it is in memory only while it is written."""
        self._add(_Pending(name, entry.dtype, entry.shape[::-1], Transposed(entry)))

    def add_file_tensors(self, path: Path) -> tuple[str, ...]:
        """Adds every tensor of a safetensors file, in the order of their names, and returns the names.

        Raises ArtifactInvalidError where the file is torn or malformed.
        """
        try:
            entries = read_entries(path)
        except LayoutError as error:
            raise ArtifactInvalidError(path.name, f"{error.detail}.") from error
        for name in sorted(entries):
            self.add_entry(entries[name])
        return tuple(sorted(entries))

    def add_text(self, name: str, text: str) -> None:
        """Writes a text file (UTF-8). Raises ArtifactInvalidError on a name that was added before."""
        self._write_new(name, [text.encode()])

    def copy_file(self, path: Path, *, name: str | None = None) -> None:
        """Copies a file's bytes, under its own or another name; a symbolic link is followed, never copied as one."""
        self._write_new(name or path.name, file_chunks(path))

    def nested(self, name: str) -> ArtifactWriter:
        """Returns a writer of a folder inside this one, with checksums of its own; commit it before this one."""
        self._nested[name] = ArtifactWriter(self._partial_dir / name, max_shard_bytes=self._max_shard_bytes)
        return self._nested[name]

    def commit(self, check: Callable[[Path], None] = lambda _: None) -> dict[str, str]:
        """Writes shards, index and SHA256SUMS, syncs all, moves the folder to its place; returns SHA-256 by file.

        check is called with the finished folder before it is moved; what it raises keeps the folder from appearing.
        """
        self._write_shards()
        write_sha256sums(self._partial_dir, self.sha256)
        sync_folder(self._partial_dir)
        check(self._partial_dir)
        self._refuse_taken_place()
        self._partial_dir.rename(self._out_dir)
        sync_folder(self._out_dir.parent)
        return dict(self._sha256)

    def _add(self, pending: _Pending) -> None:
        if pending.name in self._pending:
            raise ArtifactInvalidError(SINGLE_FILE, f"tensor {pending.name!r} was added twice.")
        self._pending[pending.name] = pending

    def _write_new(self, name: str, chunks: Iterable[Bytes]) -> None:
        if name in self._sha256 or Path(name).name != name or name in {SUMS_FILE, SINGLE_FILE, INDEX_FILE}:
            raise ArtifactInvalidError(name, "not a new plain file name.")
        self._sha256[name] = write_stream(self._partial_dir / name, chunks)

    def _write_shards(self) -> None:
        shards = plan_shards(self._pending.values(), self._max_shard_bytes)
        files = shard_names(len(shards))
        with StreamWriter() as writer:
            pieces = [
                writer.write(self._partial_dir / file, _shard_stream(shard))
                for file, shard in zip(files, shards, strict=True)
            ]
            self._sha256 |= {file: piece.result() for file, piece in zip(files, pieces, strict=True)}
        if len(shards) > 1:
            weight_map = {tensor.name: file for file, shard in zip(files, shards, strict=True) for tensor in shard}
            self._write_index(weight_map)

    def _write_index(self, weight_map: Mapping[str, str]) -> None:
        total = sum(tensor.nbytes for tensor in self._pending.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        text = json.dumps(index, indent=2) + "\n"
        self._sha256[INDEX_FILE] = write_stream(self._partial_dir / INDEX_FILE, [text.encode()])

    def _refuse_taken_place(self) -> None:
        if self._out_dir.exists() and not (self._out_dir.is_dir() and not any(self._out_dir.iterdir())):
            raise InvalidConfigError(
                "out_dir", self._out_dir.name, "exists already and is not an empty folder", "a path that is not taken"
            )


def plan_shards(tensors: Iterable[_Pending], max_shard_bytes: int) -> list[list[_Pending]]:
    """Returns the tensors in their order, cut into shards of at most max_shard_bytes of data each where possible."""
    shards: list[list[_Pending]] = [[]]
    used = 0
    for tensor in tensors:
        if shards[-1] and used + tensor.nbytes > max_shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(tensor)
        used += tensor.nbytes
    return shards


def shard_names(count: int) -> list[str]:
    """Returns the file names that transformers gives to `count` shards."""
    if count == 1:
        return [SINGLE_FILE]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def _shard_stream(shard: list[_Pending]) -> Iterator[Bytes]:
    by_name = {tensor.name: tensor for tensor in shard}
    ordered = [by_name[name] for name in storage_order((tensor.name, tensor.dtype) for tensor in shard)]
    yield build_header(((tensor.name, tensor.dtype, tensor.shape) for tensor in ordered), METADATA)
    for tensor in ordered:
        match tensor.source:
            case TensorEntry(path=path, start=start, nbytes=nbytes):
                yield from file_chunks(path, start, nbytes)
            case Transposed(entry=entry):
                yield tensor_bytes(read_tensor(entry).T)
            case _:
                yield tensor_bytes(tensor.source)
