"""From a config's type to its quantizer: the only place that knows them all."""

from __future__ import annotations

from typing import Any

from core.configs import GPTQConfig, QuantizationConfig, RTNConfig
from core.quantizers.base import BaseQuantizer
from core.quantizers.gptq import GPTQQuantizer
from core.quantizers.rtn import RTNQuantizer


def quantizer_for(config: QuantizationConfig) -> BaseQuantizer[Any]:
    """Returns the config's quantizer; raises TypeError on a config class without one."""
    if isinstance(config, GPTQConfig):
        return GPTQQuantizer(config)
    if isinstance(config, RTNConfig):
        return RTNQuantizer(config)
    raise TypeError(f"There is no quantizer for {type(config).__name__}.")
