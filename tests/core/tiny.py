"""Tiny random models of every covered family, with a tokenizer, written as the folders that users bring."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

VOCABULARY = 260  # 256 bytes and a few special tokens
_SHARED = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
_WITHOUT_HEAD_DIM = {name: value for name, value in _SHARED.items() if name != "head_dim"}
_SMALL_IDS = {"bos_token_id": 257, "eos_token_id": 258, "pad_token_id": 259}

_EXPERTS = {**_SHARED, "moe_intermediate_size": 32, "num_experts_per_tok": 2}
_LATENT_ATTENTION = {
    **_WITHOUT_HEAD_DIM,
    "moe_intermediate_size": 32,
    "num_experts_per_tok": 2,
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "first_k_dense_replace": 1,
}

DENSE_FAMILIES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "llama": ("LlamaConfig", _SHARED),
    "mistral": ("MistralConfig", {**_SHARED, "sliding_window": 8}),
    "qwen2": ("Qwen2Config", _WITHOUT_HEAD_DIM),
    "qwen3": ("Qwen3Config", _SHARED),
    "gemma": ("GemmaConfig", _SHARED),
    "gemma2": ("Gemma2Config", {**_SHARED, "sliding_window": 8, "query_pre_attn_scalar": 16}),
    "gemma3": ("Gemma3TextConfig", {**_SHARED, "sliding_window": 8, "query_pre_attn_scalar": 16}),
    "phi3": ("Phi3Config", _WITHOUT_HEAD_DIM),
    "opt": (
        "OPTConfig",
        {
            "hidden_size": 64,
            "word_embed_proj_dim": 64,
            "ffn_dim": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
        },
    ),
    "bloom": ("BloomConfig", {"hidden_size": 64, "n_layer": 3, "n_head": 4}),
    "gpt2": ("GPT2Config", {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 256}),
    "gpt_neox": (
        "GPTNeoXConfig",
        {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4},
    ),
}
EXPERT_FAMILIES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "mixtral": ("MixtralConfig", {**_SHARED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2_moe": (
        "Qwen2MoeConfig",
        {
            **_WITHOUT_HEAD_DIM,
            "moe_intermediate_size": 32,
            "num_experts_per_tok": 2,
            "num_experts": 4,
            "shared_expert_intermediate_size": 64,
        },
    ),
    # One dense block among those with experts, as the family allows.
    "qwen3_moe": ("Qwen3MoeConfig", {**_EXPERTS, "num_experts": 4, "mlp_only_layers": [1], "norm_topk_prob": True}),
    "olmoe": (
        "OlmoeConfig",
        {**_WITHOUT_HEAD_DIM, "num_experts": 4, "num_experts_per_tok": 2},
    ),
    "phimoe": (
        "PhimoeConfig",
        {**_WITHOUT_HEAD_DIM, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "deepseek_v2": ("DeepseekV2Config", _LATENT_ATTENTION),
    "deepseek_v3": ("DeepseekV3Config", _LATENT_ATTENTION),
    "glm4_moe": (
        "Glm4MoeConfig",
        {**_EXPERTS, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    ),
}
"""Config class and options by family; every width packs at 2, 3, 4 and 8 bits and divides by 16 and 32."""
FAMILIES = {**DENSE_FAMILIES, **{family: EXPERT_FAMILIES[family] for family in ("mixtral", "qwen3_moe")}}
"""Those that every property is shown on: the further families of experts differ from two of them in names alone."""


def tiny_model(family: str = "llama", *, seed: int = 0, **options: Any) -> PreTrainedModel:  # noqa: ANN401
    """Returns a random float32 model; weights are wide enough that its outputs are far from constant."""
    class_name, defaults = (DENSE_FAMILIES | EXPERT_FAMILIES)[family]
    config_class = getattr(transformers, class_name)
    config = config_class(**{"vocab_size": VOCABULARY, **_SMALL_IDS, **defaults, **options})
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(6.0)
    return model


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Returns a tokenizer of single bytes: every text has as many tokens as UTF-8 bytes, and none is unknown."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: number for number, symbol in enumerate(alphabet)}
    vocabulary |= {"<unk>": 256, "<s>": 257, "</s>": 258, "<pad>": 259}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))  # noqa: S106 - no secret
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",  # noqa: S106 - no secret
        bos_token="<s>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
        pad_token="<pad>",  # noqa: S106
    )


def write_tiny_model(folder: Path, family: str = "llama", *, seed: int = 0, **options: Any) -> Path:  # noqa: ANN401
    """Writes a model folder with tokenizer, as a hub download would be; returns it."""
    tiny_model(family, seed=seed, **options).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def random_tokens(samples: int, length: int, seed: int = 1) -> torch.Tensor:
    """Returns token ids [samples, length] within the vocabulary of bytes."""
    return torch.randint(0, 256, (samples, length), generator=torch.Generator().manual_seed(seed))
