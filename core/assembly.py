"""Turns a finished work folder and the source folder into an artifact: every tensor accounted for, every file hashed.

No arithmetic on weights: solved blocks and kept tensors are copied as raw bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from core.checkpoint.layout import TensorEntry, read_entries
from core.checkpoint.manifest import Manifest
from core.checkpoint.reader import CheckpointReader
from core.checkpoint.writer import ArtifactWriter
from core.errors import ArtifactInvalidError
from core.formats.gptq import SUFFIXES
from core.formats.quantize_config import CONFIG_FILE, QUANTIZE_CONFIG_FILE, config_text, quantize_config_text

CARRIED_PATTERNS: Final = (
    "tokenizer*.json",
    "tokenizer*.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.tiktoken",
    "spiece.model",
    "generation_config.json",
    "chat_template*",
)
"""What an artifact takes over from its source besides weights and config."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorAccount:
    """What becomes of each source tensor. quantized: consumed by solved linears. dropped: by name, with the reason."""

    kept: tuple[str, ...]
    quantized: frozenset[str]
    dropped: Mapping[str, str]


def account(
    reader: CheckpointReader, quantized: Iterable[str], unused: Sequence[str], tied: Mapping[str, str]
) -> TensorAccount:
    """Sorts every source tensor into kept, quantized or dropped.

    unused: tensors that the model has no place for. tied: stored names by the stored name that they repeat.
    """
    consumed = frozenset(quantized)
    dropped = dict.fromkeys(unused, "the model has no parameter for it")
    for name, original in tied.items():
        if torch.equal(reader.tensor(name), reader.tensor(original)):
            dropped[name] = f"tied to {original}"
    kept = tuple(name for name in reader.names() if name not in consumed and name not in dropped)
    return TensorAccount(kept=kept, quantized=consumed, dropped=dropped)


def write_weights(writer: ArtifactWriter, reader: CheckpointReader, manifest: Manifest, tensors: TensorAccount) -> None:
    """Adds kept tensors and every solved block; raises ArtifactInvalidError where a source tensor is in neither."""
    known = {*tensors.kept, *tensors.quantized, *tensors.dropped}
    missing = [name for name in reader.names() if name not in known]
    if missing:
        raise ArtifactInvalidError(
            "model.safetensors", f"source tensors are unaccounted for: {', '.join(missing[:5])}."
        )
    for name in tensors.kept:
        writer.add_entry(reader.entry(name))
    for index in range(manifest.blocks_done):
        writer.add_file_tensors(manifest.block_file(index))


def write_texts(writer: ArtifactWriter, source_dir: Path, quantization: Mapping[str, Any]) -> None:
    """Adds config.json, quantize_config.json and the files that the source carries besides its weights."""
    source_config = json.loads((source_dir / CONFIG_FILE).read_text("utf-8"))
    writer.add_text(CONFIG_FILE, config_text(source_config, quantization))
    writer.add_text(QUANTIZE_CONFIG_FILE, quantize_config_text(quantization))
    carried = {path for pattern in CARRIED_PATTERNS for path in source_dir.glob(pattern) if path.is_file()}
    for path in sorted(carried):
        writer.copy_file(path)


def bits_per_weight(manifest: Manifest, weights: int) -> float:
    """Returns the bits that codes, scales, zeros and group indexes take on disk, per quantized weight."""
    stored = sum(entry.nbytes for index in range(manifest.blocks_done) for entry in _quantized_entries(manifest, index))
    return 8 * stored / weights if weights else 0.0


def _quantized_entries(manifest: Manifest, index: int) -> Iterable[TensorEntry]:
    entries = read_entries(manifest.block_file(index))
    return (entry for name, entry in entries.items() if name.rpartition(".")[2] in SUFFIXES)
