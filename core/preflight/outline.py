"""An outline of a model: a folder with what preflight reads, the headers of weights and a few small files, and holes.

Every file has its true name and size, so that whoever inspects the folder finds what the whole one would show; the
holes take no room. Standard library only.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from core.preflight.model_config import CODE_NAMING_FILES, CONFIG_FILE, MAX_CONFIG_BYTES
from core.preflight.model_files import INDEX_FILE
from core.preflight.safetensors_header import LENGTH_BYTES, MAX_HEADER_BYTES

READ_WHOLE: Final = frozenset({CONFIG_FILE, INDEX_FILE, *CODE_NAMING_FILES})


def outline_bytes(name: str, size_bytes: int, start: bytes = b"") -> int:
    """Returns how many of a file's first bytes preflight reads.

    start: what is known of them. More may be needed once the first ones are: those of a safetensors file say how long
    its header is.
    """
    if name in READ_WHOLE:
        return size_bytes if size_bytes <= MAX_CONFIG_BYTES else 0
    if not name.endswith(".safetensors"):
        return 0
    if len(start) < LENGTH_BYTES:
        return min(LENGTH_BYTES, size_bytes)
    (length,) = struct.unpack("<Q", start[:LENGTH_BYTES])
    # A length that cannot be is for the inspection to refuse.
    return LENGTH_BYTES + (length if length <= min(MAX_HEADER_BYTES, size_bytes - LENGTH_BYTES) else 0)


def write_outline(path: Path, size_bytes: int, pieces: Iterable[bytes]) -> None:
    """Writes one file of an outline out of its bytes, which are read to their end."""
    start, needed = bytearray(), outline_bytes(path.name, size_bytes)
    for piece in pieces:
        if len(start) < needed:
            start += piece
            needed = outline_bytes(path.name, size_bytes, bytes(start[:LENGTH_BYTES]))
    with path.open("xb") as file:
        file.write(start[:needed])
        os.ftruncate(file.fileno(), size_bytes)
