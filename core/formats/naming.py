"""What an artifact is called: {base_model}-{dataset}_{stages}_{method}_{quantization_tag}, less what is unknown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from core.configs import QuantizationConfig

DTYPE_TAGS: Final = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}
_UNFIT: Final = re.compile(r"[^A-Za-z0-9.]+")


def quantization_tag(config: QuantizationConfig, head_dtype: str) -> str:
    """Returns for example "w4_g128_headfp16".

    head_dtype: torch's word for the dtype of the output head, or for example "w4" where that is quantized.
    """
    return f"w{config.bits}_g{config.group_size}_head{DTYPE_TAGS.get(head_dtype, head_dtype)}"


def artifact_name(
    base_model: str,
    config: QuantizationConfig,
    *,
    head_dtype: str,
    dataset: str | None = None,
    stages: Sequence[str] = (),
) -> str:
    """Returns the artifact's name, safe as a file and a repository name.

    base_model: its name, or a hub id whose owner is left out. dataset: of calibration, or of the training stage where
    the source carries one. stages: training stages and adapters in the source, such as "SFT", "LoRa256".
    """
    base = _fit(base_model.rstrip("/").rpartition("/")[2], "-_")
    model = base if dataset is None else f"{base}-{_fit(dataset)}"
    parts = [
        model,
        *(_fit(stage) for stage in stages),
        str(config.method).upper(),
        quantization_tag(config, head_dtype),
    ]
    return "_".join(parts)


def _fit(text: str, also: str = "") -> str:
    """Returns the text with every run of other characters turned into one hyphen, none at the ends."""
    kept = "".join(character if character in also else _UNFIT.sub("-", character) for character in text)
    return re.sub("-{2,}", "-", kept).strip("-")
