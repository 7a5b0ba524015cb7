"""What the API says about an artifact's quality: the measures of the evaluation stage, and both models' answers.

Every field may be missing: what was measured grew over time, and older jobs keep what they have.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

EVALUATION_EXAMPLE: dict[str, Any] = {
    "text": "builtin:evaluation",
    "seq_len": 512,
    "windows_sha256": "41d6e0b7…",
    "tokens": 8176,
    "perplexity_float": 11.63,
    "perplexity_quantized": 12.15,
    "perplexity_ratio": 1.0447,
    "kl_divergence": 0.0412,
    "top1_agreement": 0.9127,
    "bytes_float": 269_060_552,
    "bytes_quantized": 118_402_176,
    "peak_rss_bytes": 904_400_896,
    "sample": {
        "prompt": "What is a mill?",
        "float": "A mill is a machine that grinds grain.",
        "quantized": "A mill is a machine for grinding grain.",
        "decode": {
            "kernel": "torch_int4pack",
            "device": "cpu",
            "tokens_per_second_float": 21.4,
            "tokens_per_second_quantized": 21.1,
            "resident_bytes": 132_902_144,
        },
    },
    "nf4": {
        "perplexity": 12.31,
        "perplexity_ratio": 1.0585,
        "kl_divergence": 0.0533,
        "top1_agreement": 0.9011,
        "bytes": 116_345_472,
        "missing": None,
    },
}


class DecodeView(BaseModel):
    """How fast the answers came."""

    kernel: str | None = Field(
        default=None,
        description=(
            "What multiplied: `torch_int4pack` is torch's own kernel on packed 4-bit weights, `expanded` is every "
            "weight as a float, where that kernel does not take them. A loader's kernel has a rate of its own."
        ),
    )
    device: str | None = None
    tokens_per_second_float: float | None = None
    tokens_per_second_quantized: float | None = None
    resident_bytes: int | None = Field(
        default=None, description="Of the model's tensors while it decoded on packed weights."
    )


class SampleView(BaseModel):
    """One prompt, and what both models said to it with greedy decoding."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    prompt: str | None = None
    float_: str | None = Field(default=None, alias="float", description="The float model's answer.")
    quantized: str | None = Field(default=None, description="The artifact's answer.")
    decode: DecodeView | None = None


class NF4View(BaseModel):
    """The float model in bitsandbytes' NF4 on the same text: what loading it in 4 bits gives without any job."""

    perplexity: float | None = None
    perplexity_ratio: float | None = None
    kl_divergence: float | None = None
    top1_agreement: float | None = None
    bytes: int | None = Field(default=None, description="Weights: half a byte and a share of a scale in linears.")
    missing: str | None = Field(default=None, description="What the worker lacked to measure it, with the remedy.")


class EvaluationView(BaseModel):
    """An artifact against the float model that it was made from, on text that no calibration has seen."""

    model_config = ConfigDict(json_schema_extra={"examples": [EVALUATION_EXAMPLE]})

    text: str | None = Field(default=None, description="What was read, like `builtin:evaluation`.")
    seq_len: int | None = Field(default=None, description="Tokens of a window.")
    windows_sha256: str | None = Field(default=None, description="Of the token ids: equal hashes compare fairly.")
    tokens: int | None = Field(default=None, description="Predictions that were scored.")
    perplexity_float: float | None = None
    perplexity_quantized: float | None = None
    perplexity_ratio: float | None = Field(default=None, description="Quantized by float; 1 is no loss.")
    kl_divergence: float | None = Field(
        default=None, description="From the float model's next-token distribution, in nats per token; 0 is no loss."
    )
    top1_agreement: float | None = Field(
        default=None, ge=0, le=1, description="Share of tokens where both find the same next token likeliest."
    )
    bytes_float: int | None = Field(default=None, description="Weights of the float model.")
    bytes_quantized: int | None = Field(default=None, description="Weights of the artifact.")
    peak_rss_bytes: int | None = Field(
        default=None, description="Most resident memory of the process that quantized and measured."
    )
    sample: SampleView | None = Field(
        default=None, description="Null where a whole model does not fit in the worker's memory."
    )
    nf4: NF4View | None = Field(
        default=None,
        description="Another method on the same model, to compare with. Null where `evaluate_nf4` was set to false.",
    )
