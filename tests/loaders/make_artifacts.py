"""Writes every case's artifact into a folder, through the product's own pipeline. Runs in the product's environment.

Use: python -m tests.loaders.make_artifacts FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from core.calibration.windows import CalibrationWindows
from core.configs import CONFIG_CLASSES, GPTQConfig, Method, Order, QuantizationConfig
from core.formats.artifact_check import check_artifact
from core.overrides import Overrides
from core.pipeline import quantize_checkpoint
from core.preflight.rules import Target
from tests.core.tiny import byte_tokenizer, random_tokens, tiny_model
from tests.loaders.cases import CASES, DYNAMIC, EMBEDDINGS, HEADS, MIXED, Case

SAMPLES, SEQ_LEN = 8, 64
# The model that every width and layout is tried on: room for groups of 128, and biases.
WIDE_LLAMA = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32, "attention_bias": True}
# Experts in every block: GPTQModel reads no dense one among them, which the target check refuses.
SOURCE_OPTIONS = {"llama": WIDE_LLAMA, "qwen3_moe": {"mlp_only_layers": []}}


def write_source(folder: Path, source: str) -> Path:
    """Writes a model folder with a tokenizer, once, and returns it. source: family and dtype."""
    family, dtype, *vocabulary = source.split("-")
    options = SOURCE_OPTIONS.get(family, {}) | ({"vocab_size": int(vocabulary[0])} if vocabulary else {})
    path = folder / "sources" / source
    if not path.exists():
        model = tiny_model(family, **options)
        model.to(getattr(torch, dtype)).save_pretrained(path)
        byte_tokenizer().save_pretrained(path)
    return path


def config_of(case: Case) -> QuantizationConfig:
    """Returns the case's quantization config."""
    dynamic = Overrides(DYNAMIC if case.mixed else {})
    if case.order is None:
        config_class = CONFIG_CLASSES[Method(case.method)]
        return config_class(
            bits=case.bits,
            group_size=case.group_size,
            sym=case.sym,
            dynamic=dynamic,
            lm_head=case.head,
            embeddings=case.embedding,
        )
    order = Order(case.order)
    return GPTQConfig(bits=case.bits, group_size=case.group_size, sym=case.sym, order=order, dynamic=dynamic)


def calibration() -> CalibrationWindows:
    """Returns windows of random tokens."""
    tokens = random_tokens(SAMPLES, SEQ_LEN)
    return CalibrationWindows(tokens_NT=tokens, sha256="0" * 64, tokens_available=tokens.numel())


def main(folder: Path) -> None:
    """Writes all artifacts and checks each without a loader first."""
    for case in CASES + MIXED + HEADS + EMBEDDINGS:
        out_dir = folder / case.name
        quantize_checkpoint(write_source(folder, case.source), out_dir, config_of(case), calibration())
        in_transformers = not (case.mixed or case.head or case.embedding)
        findings = check_artifact(out_dir, (Target.GPTQMODEL, *((Target.TRANSFORMERS,) if in_transformers else ())))
        if findings:
            raise SystemExit(f"{case.name}: {findings}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
