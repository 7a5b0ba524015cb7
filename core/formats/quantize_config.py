"""The quantization settings as loaders read them: quantize_config.json and config.json's `quantization_config`.

The two hold the same object: transformers and vLLM read config.json, GPTQModel reads quantize_config.json first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from core.configs import QuantizationConfig
from core.formats.gptq import checkpoint_format
from core.overrides import Overrides, skips
from core.preflight.rules import Grid

QUANTIZE_CONFIG_FILE: Final = "quantize_config.json"
CONFIG_FILE: Final = "config.json"
PRODUCER: Final = "bitmill"
GRID_KEYS: Final = ("bits", "group_size", "sym")
_SOURCE_PATH_KEY: Final = "_name_or_path"
"""Where the source lay on the machine that wrote it: says nothing about the model, so it is not passed on."""


def quantization_config_dict(
    config: QuantizationConfig, *, desc_act: bool, meta: Mapping[str, Any], lm_head: bool = False
) -> dict[str, Any]:
    """Returns the settings with the keys that GPTQModel, transformers and vLLM ask for.

    desc_act: true only where `g_idx` is not i // group_size; a sorted order within fixed groups is false, and
    meta["order"] names it. lm_head: whether the output head is packed. meta: JSON values on how the artifact was made,
    without paths; `quantizer` is added by `provenance_meta`.
    """
    settings: dict[str, Any] = {
        # The GPTQ checkpoint format is what the loaders dispatch on, whichever method chose the codes.
        "quant_method": "gptq",
        "bits": config.bits,
        "group_size": config.group_size,
        "sym": config.sym,
        "desc_act": desc_act,
        "checkpoint_format": checkpoint_format(sym=config.always_sym),
        "lm_head": lm_head,
        "pack_dtype": "int32",
    }
    if config.dynamic:
        settings["dynamic"] = {
            pattern: {name: value for name, value in changes.items() if name in GRID_KEYS}
            for pattern, changes in config.dynamic.items()
        }
    return {**settings, "meta": dict(meta)}


def grid_for(quantization: Mapping[str, Any], prefix: str) -> Grid | None:
    """Returns a linear's grid as loaders read it: the settings, changed by the first pattern of `dynamic` that matches.

    None where the pattern leaves the linear in float. Raises InvalidConfigError where a pattern is none.
    """
    dynamic = Overrides.from_value(quantization.get("dynamic") or {})
    pattern = dynamic.match(prefix)
    if pattern is not None and skips(pattern):
        return None
    changes = {} if pattern is None else dynamic[pattern]
    values = {key: changes.get(key, quantization[key]) for key in GRID_KEYS}
    return Grid(bits=int(values["bits"]), group_size=int(values["group_size"]), sym=bool(values["sym"]))


def provenance_meta(config: QuantizationConfig, version: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `meta`: the producer with its version, the method's own options, and the facts of the run.

    facts: for example the calibration's digest, samples, seq_len and seed; JSON values without paths.
    """
    shared = {"schema_version", "method", "dynamic", "lm_head", *GRID_KEYS}
    options = {name: value for name, value in config.to_dict().items() if name not in shared}
    return {"quantizer": [f"{PRODUCER}:{version}"], "method": str(config.method), **options, **facts}


def quantize_config_text(quantization: Mapping[str, Any]) -> str:
    """Returns quantize_config.json."""
    return json_text(quantization)


def config_text(source_config: Mapping[str, Any], quantization: Mapping[str, Any], *, untied: bool = False) -> str:
    """Returns config.json: the source's, in its order, with `quantization_config` last.

    untied: the head was quantized, so that it shares nothing with the embedding any more.

    The source's dtype stays: loaders run activations in it and cast the float16 scales to it.
    """
    kept = {name: value for name, value in source_config.items() if name != _SOURCE_PATH_KEY}
    if untied:
        kept["tie_word_embeddings"] = False
    return json_text({**kept, "quantization_config": dict(quantization)})


def json_text(values: Mapping[str, Any]) -> str:
    """Returns indented JSON as the field writes it, ending in a line feed; NaN is refused with ValueError."""
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
