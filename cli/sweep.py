"""Options that may be given several times: each combination of what was typed is one config of a batch."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, get_args

from cli.options import BudgetOptions, OptionBundle, QuantizationOptions
from core.configs import CONFIG_CLASSES, ORDER_FLAGS, Method, QuantizationConfig
from core.configs.options import declared_options

METHOD = "method"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions(OptionBundle):
    """What was typed about the methods; numbers and choices are lists."""

    @staticmethod
    def parameters() -> Iterator[inspect.Parameter]:
        """Yields the parameters of `QuantizationOptions`; all but switches and JSON may be given again."""
        yield from _again(QuantizationOptions)

    def configs(
        self, shared: Mapping[str, Any], calibration: Mapping[str, Any], budgets: Sequence[Mapping[str, Any]] = ()
    ) -> list[dict[str, Any]]:
        """Returns each combination once, as a config of a batch.

        A method leaves out what only another of the chosen ones has. shared: further fields of each config.
        calibration, budgets: of those that calibrate; each budget is a value more. Raises InvalidConfigError.
        """
        methods = [CONFIG_CLASSES[Method(method)] for method in self.values.get(METHOD, [Method.GPTQ])]
        typed = {name: value for name, value in self.values.items() if name != METHOD}
        found: dict[str, dict[str, Any]] = {}
        for config_class, combination, budget in product(methods, _combinations(typed), budgets or ({},)):
            own = {name: value for name, value in combination.items() if _belongs(name, config_class, methods)}
            options = QuantizationOptions(values={METHOD: config_class.method, **own})
            options.config()
            measured = {"calibration": calibration, "budget": budget} if _calibrates(config_class, methods) else {}
            config = {**options.given(), **{name: dict(one) for name, one in measured.items() if one}, **shared}
            found.setdefault(json.dumps(config, sort_keys=True), config)
        return list(found.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepBudgets(OptionBundle):
    """What was typed about budgets, as lists."""

    @staticmethod
    def parameters() -> Iterator[inspect.Parameter]:
        """Yields the parameters of `BudgetOptions`, which may be given again."""
        yield from _again(BudgetOptions)

    def budgets(self) -> list[dict[str, Any]]:
        """Returns each combination as a config's `budget`, none where nothing was typed; raises InvalidConfigError."""
        budgets = [BudgetOptions(values=values) for values in _combinations(self.values)] if self.values else []
        for budget in budgets:
            budget.config()
        return [budget.given() for budget in budgets]


def _again(kind: type[OptionBundle]) -> Iterator[inspect.Parameter]:
    """Yields a bundle's parameters; all but switches and JSON may be given again."""
    for parameter in kind.parameters():
        given, option = get_args(parameter.annotation)
        type_ = get_args(given)[0]
        again = given if type_ in {bool, str} else list[type_] | None  # type: ignore[valid-type]  # known only here
        yield parameter.replace(annotation=Annotated[again, option])


def _combinations(typed: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    lists = [value if isinstance(value, list) else [value] for value in typed.values()]
    for values in product(*lists):
        yield dict(zip(typed, values, strict=True))


def _belongs(name: str, config_class: type[QuantizationConfig], methods: Sequence[type[QuantizationConfig]]) -> bool:
    """Whether a config gets an option: also where no chosen method has it, so that it is refused."""
    return _has(name, config_class) or not any(_has(name, other) for other in methods)


def _calibrates(config_class: type[QuantizationConfig], methods: Sequence[type[QuantizationConfig]]) -> bool:
    return config_class.needs_calibration or not any(other.needs_calibration for other in methods)


def _has(name: str, config_class: type[QuantizationConfig]) -> bool:
    if name == "preset":
        return bool(config_class.presets)
    return ("order" if name in ORDER_FLAGS else name) in declared_options(config_class)
