"""The safetensors file layout: u64 header length, JSON header, data. Parses and builds headers, reads one tensor.

Data is little-endian, as every supported machine is. Source of the format: the safetensors README, "Format".
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

DTYPES: Final[dict[str, torch.dtype]] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPE_NAMES: Final[dict[torch.dtype, str]] = {dtype: name for name, dtype in DTYPES.items()}
METADATA_KEY: Final = "__metadata__"
MAX_HEADER_BYTES: Final = 100_000_000
"""The cap of the safetensors library itself: a longer header is an attack or a torn file."""
_LENGTH: Final = struct.Struct("<Q")
_ALIGNMENT: Final = 8


class LayoutError(ValueError):
    """The file is not a well-formed safetensors file; `detail` says where it breaks."""

    def __init__(self, path: Path, detail: str) -> None:
        self.path = path
        self.detail = detail
        super().__init__(f"{path.name}: {detail}")


@dataclass(frozen=True, slots=True)
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
    """Returns the tensors of one file by name, each checked to lie inside the file.

    Raises LayoutError where the file is torn, its header is not a header, or a range does not fit dtype and shape.
    """
    with path.open("rb") as file:
        file_bytes = os.fstat(file.fileno()).st_size
        prefix = file.read(_LENGTH.size)
        if len(prefix) < _LENGTH.size:
            raise LayoutError(path, "the file ends inside the header length")
        (header_bytes,) = _LENGTH.unpack(prefix)
        if header_bytes > min(MAX_HEADER_BYTES, file_bytes - _LENGTH.size):
            raise LayoutError(path, f"a header of {header_bytes} bytes does not fit a file of {file_bytes} bytes")
        text = file.read(header_bytes)
    data_start = _LENGTH.size + header_bytes
    header = _parse_header(path, text)
    entries = {name: _entry(path, name, fields, data_start) for name, fields in header.items() if name != METADATA_KEY}
    _check_ranges(path, entries, data_start, file_bytes)
    return entries


def _parse_header(path: Path, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except ValueError as error:
        raise LayoutError(path, "the header is not JSON") from error
    if not isinstance(header, dict):
        raise LayoutError(path, "the header is not a JSON object")
    return header


def _entry(path: Path, name: str, fields: Any, data_start: int) -> TensorEntry:  # noqa: ANN401 - JSON, checked here
    try:
        dtype = DTYPES[fields["dtype"]]
        shape = tuple(int(size) for size in fields["shape"])
        begin, end = (int(offset) for offset in fields["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise LayoutError(path, f"the header entry of {name!r} is malformed") from error
    if begin < 0 or min(shape, default=0) < 0 or end - begin != tensor_nbytes(dtype, shape):
        raise LayoutError(path, f"the byte range of {name!r} does not fit its dtype and shape")
    return TensorEntry(name, dtype, shape, path, data_start + begin, end - begin)


def _check_ranges(path: Path, entries: dict[str, TensorEntry], data_start: int, file_bytes: int) -> None:
    position = data_start
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.nbytes)):
        if entry.start != position:
            raise LayoutError(path, f"the byte range of {entry.name!r} leaves a gap or overlaps another")
        position = entry.start + entry.nbytes
    if position != file_bytes:
        raise LayoutError(path, f"the header describes {position} bytes, the file has {file_bytes}")


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
        header[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
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
