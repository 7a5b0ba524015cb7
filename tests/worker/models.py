"""Builds a tiny random Llama folder with a tokenizer of its own: small, but everything in it is real."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import ByteLevelBPETokenizer
from tokenizers.implementations import BaseTokenizer

from core.calibration.builtin import builtin_text

VOCABULARY = 512
HEADS = 2


def write_tiny_llama(folder: Path, *, blocks: int = 8, hidden: int = 32, seed: int = 0) -> Path:
    """Writes config, weights and tokenizer into a new folder and returns it."""
    folder.mkdir(parents=True)
    intermediate = 2 * hidden
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": blocks,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "hidden_act": "silu",
        "bos_token_id": None,
        "eos_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(_weights(blocks, hidden, intermediate, seed), folder / "model.safetensors", metadata={"format": "pt"})
    _tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>", "model_max_length": 512})
    )
    return folder


def _weights(blocks: int, hidden: int, intermediate: int, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (generator.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)

    weights = {
        "model.embed_tokens.weight": matrix(VOCABULARY, hidden),
        "model.norm.weight": np.ones(hidden, np.float32),
    }
    shapes = {
        **{f"self_attn.{name}_proj": (hidden, hidden) for name in "qkvo"},
        "mlp.gate_proj": (intermediate, hidden),
        "mlp.up_proj": (intermediate, hidden),
        "mlp.down_proj": (hidden, intermediate),
    }
    for block in range(blocks):
        prefix = f"model.layers.{block}"
        weights |= {f"{prefix}.{name}.weight": matrix(*shape) for name, shape in shapes.items()}
        weights |= {f"{prefix}.{name}.weight": np.ones(hidden, np.float32) for name in NORMS}
    return weights


NORMS = ("input_layernorm", "post_attention_layernorm")


def _tokenizer() -> BaseTokenizer:
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        builtin_text("calibration")[:40], vocab_size=VOCABULARY, special_tokens=["<|end|>"], show_progress=False
    )
    return tokenizer
