"""Random-weight Llama checkpoints of any shape, written tensor by tensor: memory holds one of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from core.checkpoint.layout import build_header, tensor_bytes

DEVIATION = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A Llama's measures. tied: whether the head is the embedding."""

    name: str
    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int = 128_256
    tied: bool = False

    def first(self, blocks: int | None) -> Shape:
        """Returns the same with fewer blocks."""
        return self if blocks is None else replace(self, layers=min(blocks, self.layers))

    @property
    def parameters(self) -> int:
        """Returns the number of weights."""
        parts = [self.ends(), *(self.block(index) for index in range(self.layers))]
        return sum(torch.Size(shape).numel() for part in parts for shape in part.values())

    def block(self, index: int) -> dict[str, tuple[int, ...]]:
        """Returns the tensors of one block by name."""
        hidden, inner, keys = self.hidden, self.intermediate, self.hidden * self.kv_heads // self.heads
        shapes: dict[str, tuple[int, ...]] = {
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }
        return {f"model.layers.{index}.{name}.weight": shape for name, shape in shapes.items()}

    def ends(self) -> dict[str, tuple[int, ...]]:
        """Returns the tensors around the blocks by name."""
        ends: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocabulary, self.hidden),
            "model.norm.weight": (self.hidden,),
        }
        return ends if self.tied else {**ends, "lm_head.weight": (self.vocabulary, self.hidden)}


SHAPES = {
    "1b": Shape(name="1b", hidden=2048, layers=16, intermediate=8192, heads=32, kv_heads=8, tied=True),
    "8b": Shape(name="8b", hidden=4096, layers=32, intermediate=14_336, heads=32, kv_heads=8),
    "tiny": Shape(name="tiny", hidden=64, layers=3, intermediate=128, heads=4, kv_heads=2, vocabulary=512),
}


def write_llama(shape: Shape, folder: Path) -> Path:
    """Writes the model folder, one file per block and one around them; returns it."""
    LlamaConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
        bos_token_id=257,
        eos_token_id=258,
    ).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    parts = [shape.ends(), *(shape.block(index) for index in range(shape.layers))]
    names = [f"model-{number:05d}-of-{len(parts):05d}.safetensors" for number in range(1, len(parts) + 1)]
    for seed, (name, part) in enumerate(zip(names, parts, strict=True)):
        with (folder / name).open("wb") as file:
            file.writelines(_chunks(part, seed))
    index = {tensor: name for name, part in zip(names, parts, strict=True) for tensor in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}), "utf-8")
    return folder


def _chunks(part: dict[str, tuple[int, ...]], seed: int) -> Iterator[bytes | memoryview]:
    yield build_header(((name, torch.bfloat16, shape) for name, shape in part.items()), {"format": "pt"})
    generator = torch.Generator().manual_seed(seed)
    for name, shape in part.items():
        if name.endswith("norm.weight"):
            yield tensor_bytes(torch.ones(shape, dtype=torch.bfloat16))
        else:
            yield tensor_bytes(torch.empty(shape, dtype=torch.bfloat16).normal_(0, DEVIATION, generator=generator))


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Returns a tokenizer of single bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: number for number, symbol in enumerate(alphabet)}
    vocabulary |= {"<unk>": 256, "<s>": 257, "</s>": 258}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))  # noqa: S106 - no secret
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",  # noqa: S106
        bos_token="<s>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
    )
