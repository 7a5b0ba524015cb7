"""Names of artifacts."""

from __future__ import annotations

import re

import hypothesis.strategies as st
import pytest
from hypothesis import given

from core.configs import GPTQConfig, QuantizationConfig, RTNConfig
from core.formats.naming import artifact_name


@pytest.mark.parametrize(
    ("base", "config", "dtype", "dataset", "stages", "name"),
    [
        (
            "Qwen3-0.6B",
            GPTQConfig(bits=4, group_size=128),
            "float16",
            "openmath",
            ("SFT", "LoRa256"),
            "Qwen3-0.6B-openmath_SFT_LoRa256_GPTQ_w4_g128_headfp16",
        ),
        (
            "acme/Tiny",
            GPTQConfig(bits=3, group_size=-1),
            "bfloat16",
            "builtin",
            (),
            "Tiny-builtin_GPTQ_w3_g-1_headbf16",
        ),
        ("Tiny", RTNConfig(bits=8, group_size=32), "float32", None, (), "Tiny_RTN_w8_g32_headfp32"),
        ("my model", GPTQConfig(), "float16", "a b_c/d.txt", (), "my-model-a-b-c-d.txt_GPTQ_w4_g128_headfp16"),
    ],
)
def test_names_follow_the_rule(
    base: str, config: QuantizationConfig, dtype: str, dataset: str | None, stages: tuple[str, ...], name: str
):
    """{base_model}-{dataset}_{stages}_{method}_{tag}."""
    assert artifact_name(base, config, head_dtype=dtype, dataset=dataset, stages=stages) == name


@given(base=st.text(max_size=40), dataset=st.none() | st.text(max_size=20))
def test_names_are_safe_as_file_names(base: str, dataset: str | None):
    """Whatever the source is called, nothing of it leads elsewhere or needs quoting."""
    assert re.fullmatch(r"[A-Za-z0-9._-]+", artifact_name(base, GPTQConfig(), head_dtype="float16", dataset=dataset))
