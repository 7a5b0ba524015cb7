"""Options that may be given several times: each combination of what was typed is one config of a batch."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, get_args

from cli.options import OptionBundle, QuantizationOptions
from core.configs import CONFIG_CLASSES, ORDER_FLAGS, Method, QuantizationConfig
from core.configs.options import declared_options

METHOD = "method"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions(OptionBundle):
    """What was typed about the methods; numbers and choices are lists."""

    @staticmethod
    def parameters() -> Iterator[inspect.Parameter]:
        """Yields the parameters of `QuantizationOptions`; all but switches and JSON may be given again."""
        for parameter in QuantizationOptions.parameters():
            given, option = get_args(parameter.annotation)
            kind = get_args(given)[0]
            again = given if kind in {bool, str} else list[kind] | None  # type: ignore[valid-type]  # known only here
            yield parameter.replace(annotation=Annotated[again, option])

    def configs(self, shared: Mapping[str, Any], calibration: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Returns each combination once, as a config of a batch.

        A method leaves out what only another of the chosen ones has. shared: further fields of each config.
        calibration: the fields of those that calibrate. Raises InvalidConfigError.
        """
        typed = {name: value if isinstance(value, list) else [value] for name, value in self.values.items()}
        methods = [CONFIG_CLASSES[Method(method)] for method in typed.pop(METHOD, [Method.GPTQ])]
        found: dict[str, dict[str, Any]] = {}
        for config_class, values in product(methods, product(*typed.values())):
            combination = dict(zip(typed, values, strict=True))
            own = {name: value for name, value in combination.items() if _belongs(name, config_class, methods)}
            options = QuantizationOptions(values={METHOD: config_class.method, **own})
            options.config()
            draw = {"calibration": dict(calibration)} if calibration and _calibrates(config_class, methods) else {}
            config = {**options.given(), **draw, **shared}
            found.setdefault(json.dumps(config, sort_keys=True), config)
        return list(found.values())


def _belongs(name: str, config_class: type[QuantizationConfig], methods: Sequence[type[QuantizationConfig]]) -> bool:
    """Whether a config gets an option: also where no chosen method has it, so that it is refused."""
    return _has(name, config_class) or not any(_has(name, other) for other in methods)


def _calibrates(config_class: type[QuantizationConfig], methods: Sequence[type[QuantizationConfig]]) -> bool:
    return config_class.needs_calibration or not any(other.needs_calibration for other in methods)


def _has(name: str, config_class: type[QuantizationConfig]) -> bool:
    if name == "preset":
        return bool(config_class.presets)
    return ("order" if name in ORDER_FLAGS else name) in declared_options(config_class)
