"""A model folder's safetensors files, read one tensor at a time; never holds more than the tensor that is asked for.

It reads names as the checkpoint has them; mapping them to a model's parameters is `core.model`'s work.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from core.checkpoint.layout import LayoutError, TensorEntry, located_entries, read_tensor
from core.errors import ModelProblem, ModelRefusedError
from core.preflight.model_files import read_tensors
from core.profile import Work, count


class CheckpointReader:
    """Lazy access to every tensor of a folder with `model.safetensors` or a `model.safetensors.index.json`.

    Raises ModelRefusedError: no weights, an index that names a missing file or tensor, a torn or malformed file.
    """

    def __init__(self, source_dir: Path) -> None:
        self._entries = located_entries(source_dir, read_tensors(source_dir))

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
        count(Work.LOAD, nbytes=self._entries[name].nbytes)
        try:
            return read_tensor(self._entries[name])
        except (LayoutError, FileNotFoundError) as error:
            raise ModelRefusedError(
                ModelProblem.SAFETENSORS_CORRUPT,
                f"{self._entries[name].path.name} changed while it was read ({error}).",
                "Leave the model folder alone while a run reads it.",
            ) from error

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
