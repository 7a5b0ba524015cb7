"""The settings that loaders read."""

from __future__ import annotations

import json

import pytest

from core.configs import GPTQConfig, Order, QuantizationConfig, RTNConfig
from core.formats.quantize_config import config_text, provenance_meta, quantization_config_dict, quantize_config_text


@pytest.mark.parametrize(
    ("config", "checkpoint_format"),
    [(GPTQConfig(bits=4, group_size=64), "gptq"), (GPTQConfig(sym=False), "gptq_v2"), (RTNConfig(bits=2), "gptq")],
)
def test_every_key_that_a_loader_asks_for_is_there(config: QuantizationConfig, checkpoint_format: str):
    """The minimum that GPTQModel, transformers and vLLM accept together."""
    assert quantization_config_dict(config, desc_act=False, meta={"a": 1}) == {
        "quant_method": "gptq",
        "bits": config.bits,
        "group_size": config.group_size,
        "sym": config.sym,
        "desc_act": False,
        "checkpoint_format": checkpoint_format,
        "lm_head": False,
        "pack_dtype": "int32",
        "meta": {"a": 1},
    }


def test_meta_tells_how_it_was_made():
    """Producer, method, the method's own options and the run's facts; the shared options are not said twice."""
    meta = provenance_meta(GPTQConfig(order=Order.NATURAL), "1.2.3", {"calibration": {"samples": 4}})
    assert meta["quantizer"] == ["bitmill:1.2.3"]
    assert (meta["method"], meta["order"], meta["damp_percent"]) == ("gptq", "natural", 0.05)
    assert meta["calibration"] == {"samples": 4}
    assert not {"bits", "group_size", "sym", "schema_version"} & meta.keys()


def test_config_keeps_the_source_and_adds_the_settings():
    """Order and dtype of the source stay; where the source lay does not."""
    source = {"model_type": "llama", "_name_or_path": "/home/someone/model", "dtype": "bfloat16"}
    text = config_text(source, {"bits": 4})
    assert list(json.loads(text)) == ["model_type", "dtype", "quantization_config"]
    assert json.loads(text)["dtype"] == "bfloat16"
    assert "someone" not in text


def test_both_files_hold_the_same_object():
    """quantize_config.json is config.json's quantization_config."""
    quantization = quantization_config_dict(GPTQConfig(), desc_act=True, meta=provenance_meta(GPTQConfig(), "1", {}))
    assert json.loads(config_text({}, quantization))["quantization_config"] == json.loads(
        quantize_config_text(quantization)
    )


def test_values_that_are_no_json_are_refused():
    """A NaN would be a file that strict readers reject."""
    with pytest.raises(ValueError, match="JSON"):
        quantize_config_text({"damp": float("nan")})
