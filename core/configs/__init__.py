"""Turns a user's options into frozen, checked values and back into plain dicts; the only place that writes defaults.

Standard library only: the API validates with this package and its image carries no torch.
"""

from core.configs.adaround import AdaRoundConfig
from core.configs.awq import AWQConfig
from core.configs.base import NO_OVERRIDES, SCHEMA_VERSION, QuantizationConfig
from core.configs.budget import BudgetConfig
from core.configs.calibration import CalibrationConfig
from core.configs.gptq import GPTQConfig
from core.configs.pt2e import ActivationRange, PT2EConfig
from core.configs.registry import (
    CONFIG_CLASSES,
    ORDER_FLAGS,
    all_options,
    config_from_dict,
    methods_with,
    parse_formats,
)
from core.configs.rtn import RTNConfig
from core.configs.values import BITS, DEFAULT_FORMATS, Format, Method, Order, Packing, Preset, ScaleSearch

__all__ = [
    "BITS",
    "CONFIG_CLASSES",
    "DEFAULT_FORMATS",
    "NO_OVERRIDES",
    "ORDER_FLAGS",
    "SCHEMA_VERSION",
    "AWQConfig",
    "ActivationRange",
    "AdaRoundConfig",
    "BudgetConfig",
    "CalibrationConfig",
    "Format",
    "GPTQConfig",
    "Method",
    "Order",
    "PT2EConfig",
    "Packing",
    "Preset",
    "QuantizationConfig",
    "RTNConfig",
    "ScaleSearch",
    "all_options",
    "config_from_dict",
    "methods_with",
    "parse_formats",
]
