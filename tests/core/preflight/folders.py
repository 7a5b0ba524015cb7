"""Model folders made byte by byte, whole or broken in one chosen way; no torch, no transformers."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4, "F8_E4M3": 1}

HIDDEN = 64
MLP = 96
VOCABULARY = 128

LLAMA_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": MLP,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}

Tensors = dict[str, tuple[str, tuple[int, ...]]]


def llama_tensors(blocks: int = 2, dtype: str = "BF16") -> Tensors:
    """Returns names, dtypes and shapes of a tiny Llama with tied head."""
    tensors: Tensors = {
        "model.embed_tokens.weight": (dtype, (VOCABULARY, HIDDEN)),
        "model.norm.weight": (dtype, (HIDDEN,)),
    }
    for block in range(blocks):
        prefix = f"model.layers.{block}."
        tensors |= {
            f"{prefix}self_attn.q_proj.weight": (dtype, (HIDDEN, HIDDEN)),
            f"{prefix}self_attn.k_proj.weight": (dtype, (HIDDEN // 2, HIDDEN)),
            f"{prefix}self_attn.v_proj.weight": (dtype, (HIDDEN // 2, HIDDEN)),
            f"{prefix}self_attn.o_proj.weight": (dtype, (HIDDEN, HIDDEN)),
            f"{prefix}mlp.gate_proj.weight": (dtype, (MLP, HIDDEN)),
            f"{prefix}mlp.up_proj.weight": (dtype, (MLP, HIDDEN)),
            f"{prefix}mlp.down_proj.weight": (dtype, (HIDDEN, MLP)),
            f"{prefix}input_layernorm.weight": (dtype, (HIDDEN,)),
        }
    return tensors


def write_safetensors(path: Path, tensors: Tensors, fill: bytes = b"\0") -> None:
    """Writes a well-formed file whose every byte of weight is `fill`."""
    header, position = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = BYTES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    write_raw(path, json.dumps(header).encode(), fill * position)


def write_raw(path: Path, header: bytes, data: bytes, length: int | None = None) -> None:
    """Writes a file from its parts; length: what it claims for the header, its true length if not given."""
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)


def write_config(folder: Path, **changes: object) -> None:
    """Writes config.json; a change to None removes the key."""
    config = {key: value for key, value in (LLAMA_CONFIG | changes).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))


def make_llama(folder: Path, **changes: object) -> Path:
    """Makes a whole folder, config changed as given, and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, **changes)
    (folder / "tokenizer.json").write_text("{}")
    write_safetensors(folder / "model.safetensors", llama_tensors())
    return folder


def shard(folder: Path) -> dict[str, str]:
    """Splits the folder's single file into two shards with an index; returns the weight map."""
    names = list(llama_tensors())
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, members in halves.items():
        write_safetensors(folder / file, {name: llama_tensors()[name] for name in members})
    (folder / "model.safetensors").unlink()
    weight_map = {name: file for file, members in halves.items() for name in members}
    write_index(folder, weight_map)
    return weight_map


def write_index(folder: Path, weight_map: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
