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

from core.checkpoint.layout import read_entries
from core.checkpoint.manifest import Manifest
from core.checkpoint.reader import CheckpointReader
from core.checkpoint.writer import ArtifactWriter
from core.configs import GPTQConfig, Order, QuantizationConfig
from core.errors import ArtifactInvalidError
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
from core.preflight.source import ModelFacts
from core.preflight.targets import Severity, Shapes
from core.report import REPORT_FILE, QuantizationReport

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
        if torch.equal(reader.tensor(name), reader.tensor(original)):
            dropped[name] = f"tied to {original}"
    kept = tuple(name for name in reader.names() if name not in consumed and name not in dropped)
    return TensorAccount(kept=kept, quantized=consumed, dropped=dropped)


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

    def write(self, out_dir: Path, max_shard_bytes: int) -> None:
        """Writes the artifact, which appears when it is complete; raises ArtifactInvalidError if it fails its check."""
        with ArtifactWriter(out_dir, max_shard_bytes=max_shard_bytes) as writer:
            self._add_weights(writer)
            self._add_texts(writer)
            writer.commit(_refuse_broken)

    def _add_weights(self, writer: ArtifactWriter) -> None:
        for name in self.tensors.kept:
            writer.add_entry(self.reader.entry(name))
        for index in range(self.manifest.blocks_done):
            writer.add_file_tensors(self.manifest.block_file(index))
        missing = [name for name in self.tensors.quantized if not self._is_replaced(name, writer.tensor_names)]
        if missing:
            raise ArtifactInvalidError("model.safetensors", f"nothing stands for source tensors {missing[:5]}.")

    def _is_replaced(self, name: str, written: Sequence[str]) -> bool:
        stem, _, parameter = name.rpartition(".")
        return (name if parameter == "bias" else f"{stem}.{SUFFIXES[0]}") in written

    def _add_texts(self, writer: ArtifactWriter) -> None:
        quantization = self._quantization()
        source_config = json.loads((self.source_dir / CONFIG_FILE).read_text("utf-8"))
        writer.add_text(CONFIG_FILE, config_text(source_config, quantization))
        writer.add_text(QUANTIZE_CONFIG_FILE, quantize_config_text(quantization))
        writer.add_text(CARD_FILE, self._card(quantization["meta"]))
        writer.add_text(REPORT_FILE, json_text(self.report.to_dict()))
        carried = {path for pattern in CARRIED_PATTERNS for path in self.source_dir.glob(pattern) if path.is_file()}
        for path in sorted(carried):
            writer.copy_file(path)

    def _quantization(self) -> dict[str, Any]:
        facts: dict[str, Any] = dict(self.report.provenance)
        if self.report.calibration_sha256 is not None:
            facts["calibration"] = {
                "sha256": self.report.calibration_sha256,
                "samples": self.report.calibration_samples,
                "tokens": self.report.calibration_tokens,
            }
        gathers = isinstance(self.config, GPTQConfig) and self.config.order is Order.DESC_ACT
        meta = provenance_meta(self.config, self.version, facts)
        return quantization_config_dict(self.config, desc_act=gathers, meta=meta)

    def _card(self, meta: Mapping[str, Any]) -> str:
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
                    head_dtype=self.facts.dtype,
                    dataset=self.report.provenance.get("dataset"),
                ),
                base_model=base_model,
                config=self.config,
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
