"""Reads every byte of a model's weights once, for two answers: each file's SHA-256, and whether a weight is finite.

Files are read side by side in constant memory; hashing, comparing and reading all let other threads run.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from core.errors import ModelProblem, ModelRefusedError
from core.preflight.safetensors_header import TensorFacts
from core.profile import Work, span

CHUNK_BYTES: Final = 1 << 20  # a multiple of every element's width, and small enough for a core's cache

# A value is NaN or infinite where all bits of its exponent are set.
EXPONENT_BITS: Final[Mapping[str, np.unsignedinteger[Any]]] = {
    "float64": np.uint64(0x7FF0_0000_0000_0000),
    "float32": np.uint32(0x7F80_0000),
    "bfloat16": np.uint16(0x7F80),
    "float16": np.uint16(0x7C00),
}

_Bytes: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.uint8]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileScan:
    """What one file's bytes say. non_finite: names of the tensors that hold NaN or infinity."""

    sha256: str
    non_finite: frozenset[str]


@span(Work.CHECK)
def scan_weights(source_dir: Path, tensors: Mapping[str, TensorFacts], threads: int) -> dict[str, str]:
    """Returns the SHA-256 of every file that holds a tensor, by file name.

    Raises ModelRefusedError: NON_FINITE_WEIGHTS, naming the first tensor that holds NaN or infinity, and
    SAFETENSORS_CORRUPT where a file has become shorter than its header says.
    """
    by_file: dict[str, dict[str, TensorFacts]] = defaultdict(dict)
    for name, tensor in tensors.items():
        by_file[tensor.file][name] = tensor
    with ThreadPoolExecutor(max(1, min(threads, len(by_file))), "bitmill-scan") as pool:
        scanned = pool.map(lambda file: scan_file(source_dir / file, by_file[file]), by_file)
        scans = dict(zip(by_file, scanned, strict=True))
    spoiled = frozenset[str]().union(*(scan.non_finite for scan in scans.values()))
    for name in tensors:
        if name in spoiled:
            raise ModelRefusedError(
                ModelProblem.NON_FINITE_WEIGHTS,
                f"{name} holds NaN or infinite weights.",
                "Download the model again, or take another checkpoint of the training.",
            )
    return {file: scan.sha256 for file, scan in scans.items()}


def scan_file(path: Path, tensors: Mapping[str, TensorFacts]) -> FileScan:
    """Reads one file from its first to its last byte. tensors: those that lie in it, back to back up to its end."""
    digest = hashlib.sha256()
    non_finite = set()
    chunk = np.empty(CHUNK_BYTES, dtype=np.uint8)
    in_order = sorted(tensors.items(), key=lambda item: item[1].start)
    with path.open("rb", buffering=0) as file:
        for part in _parts(file, min((tensor.start for tensor in tensors.values()), default=0), chunk):
            digest.update(part.data)
        for name, tensor in in_order:
            for part in _parts(file, tensor.nbytes, chunk):
                digest.update(part.data)
                if name not in non_finite and _has_non_finite(part, tensor.dtype):
                    non_finite.add(name)
    return FileScan(sha256=digest.hexdigest(), non_finite=frozenset(non_finite))


def _parts(file: FileIO, length: int, chunk: _Bytes) -> Iterator[_Bytes]:
    """Yields the next `length` bytes in pieces of whole elements, each valid until the next one."""
    left = length
    while left:
        part = chunk[: min(left, len(chunk))]
        _fill(file, part.data)
        left -= len(part)
        yield part


def _fill(file: FileIO, view: memoryview) -> None:
    while view:
        count = file.readinto(view)
        if not count:
            raise ModelRefusedError(
                ModelProblem.SAFETENSORS_CORRUPT,
                f"{Path(str(file.name)).name} became shorter while it was read.",
                "Leave the model folder alone while a run reads it.",
            )
        view = view[count:]


def _has_non_finite(part: _Bytes, dtype: str) -> bool:
    bits = EXPONENT_BITS.get(dtype)
    return bits is not None and bool(((part.view(bits.dtype) & bits) == bits).any())
