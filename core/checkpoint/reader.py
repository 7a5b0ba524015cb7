"""A model folder's safetensors files, read one tensor at a time; never holds more than the tensor that is asked for.

It reads names as the checkpoint has them; mapping them to a model's parameters is `core.model`'s work.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import torch

from core.checkpoint.layout import LayoutError, TensorEntry, read_entries, read_tensor
from core.errors import ModelProblem, ModelRefusedError

SINGLE_FILE: Final = "model.safetensors"
INDEX_FILE: Final = "model.safetensors.index.json"


class CheckpointReader:
    """Lazy access to every tensor of a folder with `model.safetensors` or a `model.safetensors.index.json`.

    Raises ModelRefusedError: no weights, an index that names a missing file or tensor, a torn or malformed file.
    """

    def __init__(self, source_dir: Path) -> None:
        self._source_dir = source_dir
        self._entries: dict[str, TensorEntry] = _read_folder(source_dir)

    def names(self) -> tuple[str, ...]:
        """Returns all tensor names, sorted."""
        return tuple(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        """Returns whether the checkpoint has a tensor of this name."""
        return name in self._entries

    def entry(self, name: str) -> TensorEntry:
        """Returns where the tensor lies, for a raw copy of its bytes. Raises KeyError on an unknown name."""
        return self._entries[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the tensor's shape as stored."""
        return self._entries[name].shape

    def dtype(self, name: str) -> torch.dtype:
        """Returns the tensor's dtype as stored."""
        return self._entries[name].dtype

    def nbytes(self, name: str) -> int:
        """Returns the bytes that the tensor takes in the file."""
        return self._entries[name].nbytes

    def tensor(self, name: str) -> torch.Tensor:
        """Returns the tensor in memory of its own, dtype and shape as stored.

        Raises KeyError on an unknown name and ModelRefusedError where the file was cut since it was opened.
        """
        try:
            return read_tensor(self._entries[name])
        except (LayoutError, FileNotFoundError) as error:
            raise _corrupt(self._entries[name].path, f"changed while it was read ({error})") from error

    def tensors(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """Returns several tensors by name, in the order asked for."""
        return {name: self.tensor(name) for name in names}

    def close(self) -> None:
        """Forgets the index; a closed reader knows no tensor."""
        self._entries = {}

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes."""
        self.close()


def _read_folder(source_dir: Path) -> dict[str, TensorEntry]:
    # Where a folder has both, the single file wins, as it does in transformers.
    single = source_dir / SINGLE_FILE
    if single.is_file():
        return _read_file(single)
    index = source_dir / INDEX_FILE
    if index.is_file():
        return _read_indexed(source_dir, index)
    raise ModelRefusedError(
        ModelProblem.WEIGHTS_MISSING,
        f"{source_dir.name} has neither {SINGLE_FILE} nor {INDEX_FILE}.",
        "Give a folder with safetensors weights.",
    )


def _read_indexed(source_dir: Path, index: Path) -> dict[str, TensorEntry]:
    weight_map = _weight_map(index)
    entries: dict[str, TensorEntry] = {}
    for shard in sorted(set(weight_map.values())):
        found = _read_file(_shard_path(source_dir, shard))
        entries.update({name: entry for name, entry in found.items() if weight_map.get(name) == shard})
    missing = sorted(set(weight_map) - set(entries))
    if missing:
        raise ModelRefusedError(
            ModelProblem.SHARD_MISSING,
            f"{INDEX_FILE} names {len(missing)} tensors that its files do not hold, first {missing[0]!r}.",
            "Download the model again.",
        )
    return entries


def _weight_map(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        return {str(name): str(shard) for name, shard in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _corrupt(index, "has no readable weight_map") from error


def _shard_path(source_dir: Path, shard: str) -> Path:
    path = source_dir / shard
    # An index is foreign input: its file names must not lead out of the folder.
    if Path(shard).name != shard or not path.is_file():
        raise ModelRefusedError(
            ModelProblem.SHARD_MISSING,
            f"{INDEX_FILE} names {shard!r}, which is not there.",
            "Download the model again.",
        )
    return path


def _read_file(path: Path) -> dict[str, TensorEntry]:
    try:
        return read_entries(path)
    except LayoutError as error:
        raise _corrupt(path, error.detail) from error


def _corrupt(path: Path, detail: str) -> ModelRefusedError:
    return ModelRefusedError(
        ModelProblem.SAFETENSORS_CORRUPT, f"{path.name}: {detail}.", "Download the file again; it is damaged."
    )
