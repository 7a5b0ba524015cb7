"""Reads and checks the header of one safetensors file: names, dtypes, shapes, byte ranges. Never a weight.

Format: 8 bytes of length (little-endian), that many bytes of JSON, then the tensors back to back without a hole.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeGuard

from core.errors import ModelProblem, ModelRefusedError

if TYPE_CHECKING:
    from pathlib import Path

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000  # the limit of the format's reference reader

# Bytes per element, and torch's word for the dtype, which is how users and config.json spell it.
DTYPES = {
    "F64": (8, "float64"),
    "F32": (4, "float32"),
    "F16": (2, "float16"),
    "BF16": (2, "bfloat16"),
    "I64": (8, "int64"),
    "I32": (4, "int32"),
    "I16": (2, "int16"),
    "I8": (1, "int8"),
    "U64": (8, "uint64"),
    "U32": (4, "uint32"),
    "U16": (2, "uint16"),
    "U8": (1, "uint8"),
    "BOOL": (1, "bool"),
    "F8_E4M3": (1, "float8_e4m3fn"),
    "F8_E5M2": (1, "float8_e5m2"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFacts:
    """One stored tensor. dtype: torch's word. file: its shard's name. start: offset of its first byte in that file."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    file: str
    start: int

    @property
    def elements(self) -> int:
        """Returns the number of values."""
        return math.prod(self.shape)


def read_header(path: Path) -> dict[str, TensorFacts]:
    """Returns every tensor of the file by name.

    Raises ModelRefusedError (SAFETENSORS_CORRUPT) where the length, the JSON, a dtype, a shape or a byte range is
    wrong, where ranges overlap or leave a hole, and where the file is longer or shorter than its header says.
    """
    size = path.stat().st_size
    header, data_start = _read_json(path, size)
    header.pop("__metadata__", None)
    tensors = {name: _tensor(path, name, entry, data_start) for name, entry in header.items()}
    _check_ranges(path, tensors, data_start, size)
    return tensors


def _read_json(path: Path, size: int) -> tuple[dict[str, Any], int]:
    with path.open("rb") as file:
        prefix = file.read(LENGTH_BYTES)
        if len(prefix) < LENGTH_BYTES:
            _refuse(path, f"it has {len(prefix)} bytes, too few for a header.")
        (length,) = struct.unpack("<Q", prefix)
        if length > min(MAX_HEADER_BYTES, size - LENGTH_BYTES):
            _refuse(path, f"its header claims {length:,} bytes, the file has {size:,}.")
        raw = file.read(length)
    try:
        header = json.loads(raw, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise _refusal(path, f"its header is not JSON ({error}).") from error
    if not isinstance(header, dict):
        _refuse(path, "its header is not a JSON object.")
    return header, LENGTH_BYTES + length


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name stands twice")
    return values


def _tensor(path: Path, name: str, entry: object, data_start: int) -> TensorFacts:
    values = entry if isinstance(entry, dict) else {}
    code, shape, offsets = values.get("dtype"), values.get("shape"), values.get("data_offsets")
    if not (_are_counts(shape) and _are_counts(offsets) and len(offsets) == len(("begin", "end"))):
        _refuse(path, f"the entry of {name} is malformed.")
    if not isinstance(code, str) or code not in DTYPES:
        _refuse(path, f"{name} has the unknown dtype {code!r}.")
    width, dtype = DTYPES[code]
    begin, end = offsets
    if end - begin != width * math.prod(shape):
        _refuse(path, f"{name} ({dtype} {shape}) does not fill the {end - begin:,} bytes that it is given.")
    return TensorFacts(dtype=dtype, shape=tuple(shape), nbytes=end - begin, file=path.name, start=data_start + begin)


def _are_counts(values: object) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(
        isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values
    )


def _check_ranges(path: Path, tensors: dict[str, TensorFacts], data_start: int, size: int) -> None:
    position = data_start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if tensor.start != position:
            _refuse(path, f"{name} overlaps the tensor before it or leaves a hole.")
        position += tensor.nbytes
    if position > size:
        _refuse(path, f"it is cut off: {size:,} of {position:,} bytes are there.")
    if position < size:
        _refuse(path, f"{size - position:,} bytes follow its last tensor.")


def _refusal(path: Path, detail: str) -> ModelRefusedError:
    return ModelRefusedError(
        ModelProblem.SAFETENSORS_CORRUPT, f"{path.name} is damaged: {detail}", "Download or copy the file again."
    )


def _refuse(path: Path, detail: str) -> NoReturn:
    raise _refusal(path, detail)
