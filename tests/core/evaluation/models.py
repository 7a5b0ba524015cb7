"""Tiny random models on disk, and artifacts made from them by hand with the format's own functions."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.formats.gptq import checkpoint_format, to_gptq_tensors
from core.model.structure import linear_weight
from core.weights import QuantizedWeight
from tests.core.calibration.tokenizers import byte_level_tokenizer

SHARED = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 320,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
FAMILIES = {
    "llama": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "gpt2": {"n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 128},
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64},
}
GROUP_SIZE = 32


def save_model(folder: Path, family: str = "llama", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Saves a random model with a tokenizer and returns it as transformers built it."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**SHARED, **FAMILIES[family]})
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    model.save_pretrained(folder)
    byte_level_tokenizer(opens_with_bos=True).save_pretrained(folder)
    return model


def quantize_by_hand(source: Path, out: Path, *, bits: int, sym: bool) -> dict[str, torch.Tensor]:
    """Writes an artifact whose codes are random, and returns each linear's weight [out, in] worked out from them."""
    model = AutoModelForCausalLM.from_pretrained(source)
    tensors = load_file(source / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    expected = {}
    for path, module in model.named_modules():
        if not isinstance(module, (torch.nn.Linear, Conv1D)) or not any(part.isdecimal() for part in path.split(".")):
            continue
        weight = random_weight(linear_weight(module).shape, bits, generator, sym=sym)
        expected[path] = by_definition(weight)
        del tensors[f"{path}.weight"]
        tensors |= to_gptq_tensors(path, weight, tensors.get(f"{path}.bias"))
    out.mkdir()
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    write_config(source, out, bits=bits, sym=sym)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (out / name).write_bytes((source / name).read_bytes())
    return expected


def write_config(source: Path, out: Path, *, bits: int, sym: bool) -> None:
    """Writes config.json with a quantization_config."""
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": GROUP_SIZE,
        "sym": sym,
        "desc_act": False,
        "checkpoint_format": checkpoint_format(sym=sym),
    }
    (out / "config.json").write_text(json.dumps(config))


def random_weight(
    shape: torch.Size | tuple[int, int], bits: int, generator: torch.Generator, *, sym: bool
) -> QuantizedWeight:
    rows, columns = shape
    groups = columns // GROUP_SIZE
    zeros = torch.full((rows, groups), 2 ** (bits - 1), dtype=torch.uint8)
    if not sym:
        zeros = torch.randint(0, 2**bits, (rows, groups), generator=generator, dtype=torch.uint8)
    return QuantizedWeight(
        codes_OI=torch.randint(0, 2**bits, (rows, columns), generator=generator, dtype=torch.uint8),
        scales_OG=(torch.rand(rows, groups, generator=generator) * 0.02 + 0.001).half(),
        zeros_OG=zeros,
        g_idx_I=torch.arange(columns, dtype=torch.int32) // GROUP_SIZE,
        bits=bits,
        group_size=GROUP_SIZE,
        sym=sym,
    )


def by_definition(weight: QuantizedWeight) -> torch.Tensor:
    """Returns s (c - z) group by group, written out without the code under test."""
    parts = [
        weight.scales_OG[:, group : group + 1].float()
        * (
            weight.codes_OI[:, group * GROUP_SIZE : (group + 1) * GROUP_SIZE].float()
            - weight.zeros_OG[:, group : group + 1].float()
        )
        for group in range(weight.scales_OG.shape[1])
    ]
    return torch.cat(parts, dim=1)
