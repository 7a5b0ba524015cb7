"""The safetensors file layout for torch: reads one tensor, builds headers and whole files.

Parsing and checking a header is `core.preflight.safetensors_header`. Data is little-endian, as every supported machine
is. Source of the format: the safetensors README, "Format".
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from core.errors import ModelRefusedError
from core.preflight.safetensors_header import DTYPES, TensorFacts, read_header

DTYPE_CODES: Final[dict[torch.dtype, str]] = {getattr(torch, name): code for code, (_, name) in DTYPES.items()}
METADATA_KEY: Final = "__metadata__"
_LENGTH: Final = struct.Struct("<Q")
_ALIGNMENT: Final = 8


class LayoutError(ValueError):
    """The file is not a well-formed safetensors file; `detail` says where it breaks."""

    def __init__(self, path: Path, detail: str) -> None:
        self.path = path
        self.detail = detail
        super().__init__(f"{path.name}: {detail}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEntry:
    """One tensor's place in a file: `start` is a byte offset from the beginning of the file."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    path: Path
    start: int
    nbytes: int


def tensor_nbytes(dtype: torch.dtype, shape: Iterable[int]) -> int:
    """Returns the bytes that a dense tensor takes."""
    count = dtype.itemsize
    for size in shape:
        count *= size
    return count


def read_entries(path: Path) -> dict[str, TensorEntry]:
    """Returns the tensors of one file by name; raises LayoutError where its header or its length is wrong."""
    try:
        return located_entries(path.parent, read_header(path))
    except ModelRefusedError as error:
        raise LayoutError(path, error.detail) from error


def located_entries(folder: Path, facts: Mapping[str, TensorFacts]) -> dict[str, TensorEntry]:
    """Returns what a header says with torch's dtypes and whole paths."""
    return {
        name: TensorEntry(
            name=name,
            dtype=getattr(torch, tensor.dtype),
            shape=tensor.shape,
            path=folder / tensor.file,
            start=tensor.start,
            nbytes=tensor.nbytes,
        )
        for name, tensor in facts.items()
    }


def read_tensor(entry: TensorEntry) -> torch.Tensor:
    """Returns the tensor in memory of its own. Plain reads, not a mapping: mapped pages would count as resident.

    Raises LayoutError where the file has become shorter than its header says.
    """
    buffer = torch.empty(entry.nbytes, dtype=torch.uint8)
    with entry.path.open("rb", buffering=0) as file:
        file.seek(entry.start)
        view = _memory(buffer)
        while view:
            count = file.readinto(view)
            if not count:
                raise LayoutError(entry.path, f"the file ends inside {entry.name!r}")
            view = view[count:]
    return buffer.view(entry.dtype).reshape(entry.shape)


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """Returns the tensor's bytes as they are written; a copy only where it is not contiguous or not on the CPU."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return _memory(flat.view(torch.uint8))


def _memory(flat: torch.Tensor) -> memoryview:
    array: np.ndarray[tuple[int], np.dtype[np.uint8]] = flat.numpy()
    return array.data


def storage_order(entries: Iterable[tuple[str, torch.dtype]]) -> list[str]:
    """Returns names by falling item size, then by name: all are aligned and the order of the input leaves no trace."""
    return [name for name, dtype in sorted(entries, key=lambda entry: (-entry[1].itemsize, entry[0]))]


def build_header(tensors: Iterable[tuple[str, torch.dtype, tuple[int, ...]]], metadata: dict[str, str]) -> bytes:
    """Returns length and header for tensors that are written back to back in the order given."""
    header: dict[str, Any] = {METADATA_KEY: metadata}
    offset = 0
    for name, dtype, shape in tensors:
        end = offset + tensor_nbytes(dtype, shape)
        header[name] = {"dtype": DTYPE_CODES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return _LENGTH.pack(len(text)) + text


def tensors_stream(tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> Iterator[bytes | memoryview]:
    """Yields the bytes of one whole file that holds the tensors; the same tensors always give the same bytes."""
    names = storage_order((name, tensor.dtype) for name, tensor in tensors.items())
    yield build_header(((name, tensors[name].dtype, tuple(tensors[name].shape)) for name in names), metadata)
    for name in names:
        yield tensor_bytes(tensors[name])
