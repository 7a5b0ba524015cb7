"""Names a model folder's content by hash, so that a resume or a reuse never mixes two models.

The bytes are read each time. A hash that is remembered by path, size, times and inode would be quicker and sometimes
wrong: a copy that keeps times, a restored snapshot and a shared file system change bytes under all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from core.checkpoint.durable import file_sha256
from core.profile import Work, span

_CONTENT_PATTERNS = ("config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "vocab*", "merges.txt")


@span(Work.CHECK)
def model_sha256(source_dir: Path, known: Mapping[str, str] | None = None) -> str:
    """Returns the SHA-256 over names and SHA-256 of the files that decide a run: config, weights, tokenizer.

    known: hashes by file name that the caller has just made from the files' bytes; the other files are read.
    """
    known = known or {}
    files = sorted({path for pattern in _CONTENT_PATTERNS for path in source_dir.glob(pattern) if path.is_file()})
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name}\0{known.get(path.name) or file_sha256(path)}\n".encode())
    return digest.hexdigest()
