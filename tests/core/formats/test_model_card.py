"""The artifact's README."""

from __future__ import annotations

import yaml

from core.configs import GPTQConfig
from core.formats.model_card import ModelCard, model_card_text

SHAPES = {"layers.0.q_proj": (64, 128), "layers.0.down_proj": (128, 256)}


def card(config: GPTQConfig, **changes: object) -> str:
    """Returns a card's text."""
    values = {
        "name": "Tiny-builtin_GPTQ_w4_g128_headbf16",
        "base_model": "acme/Tiny",
        "config": config,
        "meta": {"order": "desc_act_static", "calibration": {"samples": 32, "seed": 0}, "true_sequential": True},
        "shapes": SHAPES,
        "evidence": {"bits per weight": "4.16"},
        **changes,
    }
    return model_card_text(ModelCard(**values))


def test_the_metadata_block_is_yaml():
    """Hubs read it; a name with quotes and colons does not break it."""
    text = card(GPTQConfig(), base_model='a"b: c\\d')
    _, block, _ = text.split("---\n", 2)
    assert yaml.safe_load(block) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": 'a"b: c\\d',
        "base_model_relation": "quantized",
        "tags": ["gptq", "4-bit"],
    }


def test_the_card_shows_evidence_and_options():
    """What was measured, and how the artifact was made."""
    text = card(GPTQConfig(), warnings=["a starved linear"])
    assert "| bits per weight | 4.16 |" in text
    assert "| calibration | samples 32, seed 0 |" in text
    assert "| true_sequential | true |" in text
    assert "- Warning: a starved linear" in text
    assert "symmetric, groups of 128, 2 linears" in text


def test_lines_to_paste_for_every_loader():
    """A symmetric 4-bit artifact loads in all three."""
    text = card(GPTQConfig())
    assert 'AutoModelForCausalLM.from_pretrained("./Tiny-builtin_GPTQ_w4_g128_headbf16"' in text
    assert "vllm serve ./Tiny-builtin_GPTQ_w4_g128_headbf16" in text
    assert 'GPTQModel.load("./Tiny-builtin_GPTQ_w4_g128_headbf16")' in text


def test_a_loader_that_cannot_load_it_is_not_advertised():
    """Three bits: vLLM gets the reason instead of a command."""
    text = card(GPTQConfig(bits=3, sym=False))
    assert "vllm serve" not in text
    assert "Does not load it: bits=3" in text
    assert "GPTQModel.load" in text


def test_foreign_text_stays_inside_its_cell():
    """A bar or a line feed in a value does not tear the table."""
    assert "| a\\|b | c d |" in card(GPTQConfig(), evidence={"a|b": "c\nd"})


def test_a_loader_that_fails_on_the_family_gets_no_lines_to_paste():
    """For GPT-2 the card says why transformers does not load it, instead of lines that would fail."""
    text = card(GPTQConfig(), model_type="gpt2")
    section = text.split("### transformers")[1].split("###")[0]
    assert "Does not load it" in section
    assert "from_pretrained" not in section
