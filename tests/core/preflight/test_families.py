"""Names and shapes read from headers are those of the modules that transformers builds, family by family."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import transformers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.configuration_auto import model_type_to_module_name
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from core.preflight.architectures import (
    DECODER_MODEL_TYPES,
    ENCODER_DECODER_MODEL_TYPES,
    ENCODER_MODEL_TYPES,
    SCALED_EMBEDDING_MODEL_TYPES,
)
from core.preflight.model_config import DECODER_CLASS_ENDINGS
from core.preflight.source import inspect_source

SMALL: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16},
    "gemma": {"num_key_value_heads": 2, "head_dim": 16},
    "phi3": {"num_key_value_heads": 2, "pad_token_id": 0},
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "bloom": {"n_head": 4, "n_layer": 2},
    "gpt2": {"n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 64},
    "gpt_neox": {},
}
SHARED = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 128,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# transformers' causal classes that are no text decoders of their own: parts of models that hear, see or draw.
NOT_PLAIN_TEXT = {"emu3", "fuyu", "gemma4_assistant", "gemma4_unified_assistant", "git", "llama4", "mllama", "moshi"}
NOT_PLAIN_TEXT |= {"musicgen", "musicgen_melody", "phi4_multimodal", "trocr", "whisper", "xlnet"}


@pytest.mark.parametrize("family", SMALL)
def test_linears_are_those_of_the_modules(tmp_path: Path, family: str):
    """Every nn.Linear and Conv1D inside a block is listed with its (out, in), and nothing else is."""
    config = AutoConfig.for_model(family, **{**SHARED, **SMALL[family]})
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    facts = inspect_source(tmp_path)
    expected = sorted(
        (module.nf, module.nx) if isinstance(module, Conv1D) else (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and any(part.isdecimal() for part in name.split("."))
    )
    assert sorted(facts.linears.values()) == expected
    assert facts.blocks == 2
    assert facts.hidden_size == 64
    assert facts.parameters == model.num_parameters()


def test_the_table_of_decoders_is_that_of_transformers():
    """Every causal family of the installed transformers is in exactly one table, or named here with the reason."""
    causal = {
        model_type
        for model_type, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()
        if str(name).endswith(DECODER_CLASS_ENDINGS)
    }
    known = DECODER_MODEL_TYPES | ENCODER_MODEL_TYPES | ENCODER_DECODER_MODEL_TYPES
    assert causal - known - NOT_PLAIN_TEXT == set()
    assert causal >= DECODER_MODEL_TYPES
    assert not DECODER_MODEL_TYPES & (ENCODER_MODEL_TYPES | ENCODER_DECODER_MODEL_TYPES)


def test_families_that_scale_their_embedding_are_those_whose_code_says_so():
    """A subclass of nn.Embedding that multiplies, in the module of a decoder's model type."""
    models = Path(transformers.__file__).parent / "models"
    scaled = set()
    for model_type in DECODER_MODEL_TYPES:
        module = model_type_to_module_name(model_type)
        code = models / module / f"modeling_{module}.py"
        if code.is_file() and re.search(r"class \w*ScaledWordEmbedding\(nn\.Embedding\)", code.read_text()):
            scaled.add(model_type)
    assert scaled == SCALED_EMBEDDING_MODEL_TYPES
