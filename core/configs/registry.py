"""From a method's name to its config class, and from plain values to a checked config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.configs.adaround import AdaRoundConfig
from core.configs.awq import AWQConfig
from core.configs.base import SCHEMA_VERSION, QuantizationConfig
from core.configs.gptq import GPTQConfig
from core.configs.options import DeclaredOption, declared_options, parse_enum, refuse_unknown, require
from core.configs.rtn import RTNConfig
from core.configs.values import Format, Method, Order, Preset

ORDER_FLAGS = ("desc_act", "static_groups")
CONFIG_CLASSES: dict[Method, type[QuantizationConfig]] = {
    config_class.method: config_class for config_class in (GPTQConfig, RTNConfig, AWQConfig, AdaRoundConfig)
}


def config_from_dict(values: dict[str, Any]) -> QuantizationConfig:
    """Reads what `QuantizationConfig.to_dict` wrote, or a user's options with a `preset` beneath them.

    Raises InvalidConfigError on an unknown method or preset, an unknown field, another schema version or a value out
    of range.
    """
    options = dict(values)
    version = options.pop("schema_version", SCHEMA_VERSION)
    require(version == SCHEMA_VERSION, "schema_version", version, "unknown version", str(SCHEMA_VERSION))
    method = parse_enum(Method, "method", options.pop("method", Method.GPTQ))
    config_class = CONFIG_CLASSES[method]
    beneath = _preset_options(config_class, options.pop("preset", None))
    options = _with_order(options, config_class)
    refuse_unknown(options, declared_options(config_class))
    return config_class(**{**beneath, **options})


def all_options() -> dict[str, DeclaredOption]:
    """Returns the options of all methods by name; one that several methods have is the same in each."""
    found: dict[str, DeclaredOption] = {}
    for config_class in CONFIG_CLASSES.values():
        for name, declared in declared_options(config_class).items():
            found.setdefault(name, declared)
    return found


def methods_with(name: str) -> tuple[Method, ...]:
    """Returns the methods that have an option."""
    return tuple(method for method, config_class in CONFIG_CLASSES.items() if name in declared_options(config_class))


def parse_formats(names: Sequence[str]) -> tuple[Format, ...]:
    """Returns the formats in their order, each once; raises InvalidConfigError on none or on an unknown one."""
    require(bool(names), "formats", list(names), "no format", ", ".join(Format))
    return tuple(dict.fromkeys(parse_enum(Format, "formats", name) for name in names))


def _with_order(options: dict[str, Any], config_class: type[QuantizationConfig]) -> dict[str, Any]:
    """Replaces `desc_act` and `static_groups`, another spelling of `order`, by it.

    A flag that is not given keeps its part of the default order.
    """
    flags = {name: options[name] for name in ORDER_FLAGS if options.get(name) is not None}
    rest = {name: value for name, value in options.items() if name not in ORDER_FLAGS}
    if not flags or "order" not in declared_options(config_class):
        return {**rest, **flags}
    given = rest.get("order")
    one = "one of the two spellings"
    require(given is None, "order", given, "given together with desc_act or static_groups", one)
    default = parse_enum(Order, "order", declared_options(config_class)["order"].default)
    order = Order.from_flags(
        desc_act=flags.get("desc_act", default.sorts_columns),
        static_groups=flags.get("static_groups", default.fixes_groups),
    )
    return {**rest, "order": order}


def _preset_options(config_class: type[QuantizationConfig], preset: object) -> dict[str, Any]:
    if preset is None:
        return {}
    name = parse_enum(Preset, "preset", preset)
    known = ", ".join(config_class.presets) or "no preset for this method"
    require(name in config_class.presets, "preset", preset, f"{config_class.method} has no such preset", known)
    return dict(config_class.presets[name])
