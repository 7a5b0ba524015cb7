"""Writes every case's artifact into a folder, through the product's own pipeline. Runs in the product's environment.

Use: python -m tests.loaders.make_artifacts FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from core.calibration.windows import CalibrationWindows
from core.configs import GPTQConfig, Order, QuantizationConfig, RTNConfig
from core.formats.artifact_check import check_artifact
from core.pipeline import quantize_checkpoint
from core.preflight.targets import Target
from tests.loaders.cases import CASES, Case

VOCABULARY = 64
SAMPLES, SEQ_LEN = 8, 64
# Dimensions that the loaders' CPU kernels take; key and value heads differ from query heads on purpose.
LLAMA_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": SEQ_LEN,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}


def tiny_model(family: str) -> PreTrainedModel:
    """Returns a random model whose logits are of ordinary size, with biases where the family can have them."""
    torch.manual_seed(0)
    model: PreTrainedModel
    match family:
        case "llama":
            model = LlamaForCausalLM(LlamaConfig(**LLAMA_SHAPE, attention_bias=True, tie_word_embeddings=False))
        case "qwen3":
            model = Qwen3ForCausalLM(Qwen3Config(**LLAMA_SHAPE, head_dim=32, tie_word_embeddings=True))
        case "gpt2":
            special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
            model = GPT2LMHeadModel(
                GPT2Config(vocab_size=VOCABULARY, n_positions=SEQ_LEN, n_embd=128, n_layer=2, n_head=4, **special)
            )
        case _:
            raise ValueError(family)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.08)
    return model


def write_source(folder: Path, source: str) -> Path:
    """Writes a model folder with a tokenizer, once, and returns it. source: family and dtype."""
    family, dtype = source.split("-")
    path = folder / "sources" / source
    if not path.exists():
        tiny_model(family).to(getattr(torch, dtype)).save_pretrained(path)
        words = {f"t{number}": number for number in range(VOCABULARY)}
        PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(WordLevel(words, unk_token="t3")),  # noqa: S106 - a word, not a secret
            bos_token="t0",  # noqa: S106
            eos_token="t1",  # noqa: S106
            pad_token="t2",  # noqa: S106
            unk_token="t3",  # noqa: S106
        ).save_pretrained(path)
    return path


def config_of(case: Case) -> QuantizationConfig:
    """Returns the case's quantization config."""
    if case.order is None:
        return RTNConfig(bits=case.bits, group_size=case.group_size, sym=case.sym)
    return GPTQConfig(bits=case.bits, group_size=case.group_size, sym=case.sym, order=Order(case.order))


def calibration() -> CalibrationWindows:
    """Returns windows of random tokens."""
    tokens = torch.randint(3, VOCABULARY, (SAMPLES, SEQ_LEN), generator=torch.Generator().manual_seed(1))
    return CalibrationWindows(tokens_NT=tokens, sha256="0" * 64, tokens_available=tokens.numel())


def main(folder: Path) -> None:
    """Writes all artifacts and checks each without a loader first."""
    for case in CASES:
        out_dir = folder / case.name
        quantize_checkpoint(write_source(folder, case.source), out_dir, config_of(case), calibration())
        findings = check_artifact(out_dir, (Target.GPTQMODEL, Target.TRANSFORMERS))
        if findings:
            raise SystemExit(f"{case.name}: {findings}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
