"""Turns a finished work folder and the source folder into an artifact: every tensor accounted for, every file hashed.

No arithmetic on weights: solved blocks and kept tensors are copied as raw bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, assert_never

import torch

from core.checkpoint.layout import read_entries
from core.checkpoint.manifest import Manifest
from core.checkpoint.reader import CheckpointReader
from core.checkpoint.writer import ArtifactWriter
from core.configs import DEFAULT_FORMATS, Format, GPTQConfig, Order, QuantizationConfig
from core.errors import ArtifactInvalidError
from core.formats import compressed_tensors
from core.formats.artifact_check import check_artifact
from core.formats.gptq import SUFFIXES
from core.formats.model_card import CARD_FILE, ModelCard, model_card_text
from core.formats.naming import artifact_name
from core.formats.quantize_config import (
    CONFIG_FILE,
    QUANTIZE_CONFIG_FILE,
    config_text,
    json_text,
    provenance_meta,
    quantization_config_dict,
    quantize_config_text,
)
from core.preflight.mixed import linear_grids
from core.preflight.rules import Grid, Severity, Shapes
from core.preflight.source import MATRIX_DIMENSIONS, ModelFacts
from core.profile import ProfileSummary
from core.report import REPORT_FILE, QuantizationReport

PROFILE_FILE: Final = "profile.json"
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
    reader: CheckpointReader, quantized: Iterable[str], unused: Sequence[str], ties: Mapping[str, str]
) -> TensorAccount:
    """Sorts every source tensor into kept, quantized or dropped.

    unused: tensors that the model has no place for. ties: stored names by the stored name that they may repeat.
    """
    consumed = frozenset(quantized)
    dropped = dict.fromkeys(unused, "the model has no parameter for it")
    for name, original in ties.items():
        if name not in consumed and torch.equal(reader.tensor(name), reader.tensor(original)):
            dropped[name] = f"tied to {original}"
    kept = tuple(name for name in reader.names() if name not in consumed and name not in dropped)
    return TensorAccount(kept=kept, quantized=consumed, dropped=dropped)


def rewritten(reader: CheckpointReader, manifest: Manifest) -> set[str]:
    """Returns the source tensors that finished blocks hold anew: norms that took channel scales over, and biases."""
    names = {name for index in range(manifest.blocks_done) for name in read_entries(manifest.block_file(index))}
    return names & set(reader.names())


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """One finished run's parts. shapes: of the quantized linears, by stored name."""

    source_dir: Path
    reader: CheckpointReader
    manifest: Manifest
    config: QuantizationConfig
    facts: ModelFacts
    shapes: Shapes
    tensors: TensorAccount
    report: QuantizationReport
    version: str
    profile: ProfileSummary | None = None

    def write(self, out_dir: Path, max_shard_bytes: int, formats: Sequence[Format] = DEFAULT_FORMATS) -> None:
        """Writes the artifact, which appears when it is complete; raises ArtifactInvalidError if it fails its check.

        formats: the first is out_dir itself, each further one a folder in it, named after the format.
        """
        first, *others = formats
        with ArtifactWriter(out_dir, max_shard_bytes=max_shard_bytes) as writer:
            self._add_artifact(writer, first)
            for layout in others:
                with writer.nested(str(layout)) as inner:
                    self._add_artifact(inner, layout)
                    inner.commit(_refuse_broken)
            writer.commit(_refuse_broken)

    def _add_artifact(self, writer: ArtifactWriter, layout: Format) -> None:
        for name in self.tensors.kept:
            writer.add_entry(self.reader.entry(name))
        for index in range(self.manifest.blocks_done):
            self._add_block(writer, self.manifest.block_file(index), layout)
        missing = [name for name in self.tensors.quantized if not self._is_replaced(name, writer.tensor_names, layout)]
        if missing:
            raise ArtifactInvalidError("model.safetensors", f"nothing stands for source tensors {missing[:5]}.")
        self._add_texts(writer, layout)

    def _add_block(self, writer: ArtifactWriter, path: Path, layout: Format) -> None:
        match layout:
            case Format.GPTQ:
                writer.add_file_tensors(path)
            case Format.COMPRESSED_TENSORS:
                self._add_compressed(writer, path)
            case _:
                assert_never(layout)

    def _add_compressed(self, writer: ArtifactWriter, path: Path) -> None:
        """Adds a block file, which is in the GPTQ layout, in the other one: every matrix is its transpose."""
        entries, grids = read_entries(path), self._grids
        for name in sorted(entries):
            prefix, _, suffix = name.rpartition(".")
            if suffix not in SUFFIXES:
                writer.add_entry(entries[name])
                continue
            twin = compressed_tensors.transposed_suffixes(sym=grids[prefix].sym).get(suffix)
            if twin is not None:
                writer.add_transposed(entries[name], name=f"{prefix}.{twin}")
            if twin == compressed_tensors.PACKED:
                shape = compressed_tensors.shape_tensor(*self.shapes[prefix])
                writer.add_tensor(f"{prefix}.{compressed_tensors.SHAPE}", shape)

    def _is_replaced(self, name: str, written: Sequence[str], layout: Format) -> bool:
        stem, _, parameter = name.rpartition(".")
        codes = SUFFIXES[0] if layout is Format.GPTQ else compressed_tensors.PACKED
        return name in written or (parameter != "bias" and f"{stem}.{codes}" in written)

    def _add_texts(self, writer: ArtifactWriter, layout: Format) -> None:
        meta = self._meta()
        source_config = json.loads((self.source_dir / CONFIG_FILE).read_text("utf-8"))
        quantization = self._quantization(layout, meta)
        writer.add_text(CONFIG_FILE, config_text(source_config, quantization, untied=self._head_grid is not None))
        if layout is Format.GPTQ:
            writer.add_text(QUANTIZE_CONFIG_FILE, quantize_config_text(self._quantization(layout, meta)))
        writer.add_text(CARD_FILE, self._card(layout, meta))
        writer.add_text(REPORT_FILE, json_text(self.report.to_dict()))
        if self.profile is not None:
            writer.add_text(PROFILE_FILE, json_text(self.profile.to_dict()))
        carried = {path for pattern in CARRIED_PATTERNS for path in self.source_dir.glob(pattern) if path.is_file()}
        for path in sorted(carried):
            writer.copy_file(path)

    def _meta(self) -> dict[str, Any]:
        facts: dict[str, Any] = dict(self.report.provenance)
        if self.report.calibration_sha256 is not None:
            facts["calibration"] = {
                "sha256": self.report.calibration_sha256,
                "samples": self.report.calibration_samples,
                "tokens": self.report.calibration_tokens,
            }
        return provenance_meta(self.config, self.version, facts)

    def _quantization(self, layout: Format, meta: Mapping[str, Any]) -> dict[str, Any]:
        if layout is Format.GPTQ:
            gathers = isinstance(self.config, GPTQConfig) and self.config.order is Order.DESC_ACT
            packed_head = self._head_grid is not None
            return quantization_config_dict(self.config, desc_act=gathers, meta=meta, lm_head=packed_head)
        return compressed_tensors.compressed_config_dict(self._grids, self._float_matrices(), meta=meta)

    @property
    def _grids(self) -> dict[str, Grid]:
        grids = linear_grids(self.config, self.shapes)
        return {name: grid for name, grid in grids.items() if grid is not None}

    @property
    def _head_grid(self) -> Grid | None:
        """Returns the grid of the quantized output head."""
        return None if self.facts.head is None else self._grids.get(self.facts.head[0])

    def _float_matrices(self) -> list[str]:
        """Returns the modules whose matrices stay in float."""
        return [
            name.removesuffix(".weight")
            for name in self.tensors.kept
            if name.endswith(".weight") and len(self.facts.tensors[name].shape) == MATRIX_DIMENSIONS
        ]

    def _card(self, layout: Format, meta: Mapping[str, Any]) -> str:
        base_model = str(self.report.provenance.get("model") or self.source_dir.resolve().name)
        loss = self.report.mean_relative_loss
        evidence = {"bits per weight": f"{self.report.bits_per_weight:.3f}"}
        if loss is not None:
            evidence["mean relative loss of the linears' outputs"] = f"{loss:.5f}"
        return model_card_text(
            ModelCard(
                name=artifact_name(
                    base_model,
                    self.config,
                    head_dtype=f"w{self._head_grid.bits}" if self._head_grid else self.facts.dtype,
                    dataset=self.report.provenance.get("dataset"),
                ),
                base_model=base_model,
                config=self.config,
                layout=layout,
                model_type=self.facts.model_type,
                meta=meta,
                shapes=self.shapes,
                evidence=evidence,
                warnings=self.report.warnings,
            )
        )


def _refuse_broken(folder: Path) -> None:
    for finding in check_artifact(folder, ()):
        if finding.severity is Severity.REFUSE:
            raise ArtifactInvalidError(finding.file, finding.detail)


def bits_per_weight(manifest: Manifest, shapes: Shapes) -> float:
    """Returns the bits that codes, scales, zeros and group indexes take on disk, per quantized weight."""
    weights = sum(out_features * in_features for out_features, in_features in shapes.values())
    stored = sum(
        entry.nbytes
        for index in range(manifest.blocks_done)
        for name, entry in read_entries(manifest.block_file(index)).items()
        if name.rpartition(".")[2] in SUFFIXES
    )
    return 8 * stored / weights if weights else 0.0
