"""From a config's type to its quantizer: the only place that knows them all."""

from __future__ import annotations

from typing import Any

from core.configs import AdaRoundConfig, AWQConfig, GPTQConfig, QuantizationConfig, RTNConfig
from core.quantizers.adaround import AdaRoundQuantizer
from core.quantizers.awq import AWQQuantizer
from core.quantizers.base import BaseQuantizer
from core.quantizers.gptq import GPTQQuantizer
from core.quantizers.rtn import RTNQuantizer


class PerLinear:
    """The quantizer of each linear of one config; one object for all linears that share their options."""

    def __init__(self) -> None:
        self._known: dict[QuantizationConfig, BaseQuantizer[Any]] = {}

    def of(self, config: QuantizationConfig | None) -> BaseQuantizer[Any] | None:
        """Returns the quantizer of `QuantizationConfig.for_linear`'s answer; None where the linear stays in float."""
        if config is None:
            return None
        if config not in self._known:
            self._known[config] = quantizer_for(config)
        return self._known[config]


def quantizer_for(config: QuantizationConfig) -> BaseQuantizer[Any]:
    """Returns the config's quantizer; raises TypeError on a config class without one."""
    if isinstance(config, GPTQConfig):
        return GPTQQuantizer(config)
    if isinstance(config, RTNConfig):
        return RTNQuantizer(config)
    if isinstance(config, AWQConfig):
        return AWQQuantizer(config)
    if isinstance(config, AdaRoundConfig):
        return AdaRoundQuantizer(config)
    raise TypeError(f"There is no quantizer for {type(config).__name__}.")
