"""The options that `run` and `jobs submit` share: their spelling, and the request that they stand for.

The options of methods and of the draw are made from `core.configs`. One that is not given stays out of the request:
defaults are written there and nowhere else.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated, Any, ClassVar

import typer

from core.configs import (
    CONFIG_CLASSES,
    DEFAULT_FORMATS,
    BudgetConfig,
    CalibrationConfig,
    Format,
    GPTQConfig,
    Method,
    Preset,
    QuantizationConfig,
    all_options,
    config_from_dict,
)
from core.configs.options import DeclaredOption, declared_options
from core.errors import InvalidConfigError
from core.overrides import FORM, Overrides
from core.preflight.rules import Target

GRID = "Grid"
CALIBRATION = "Calibration"
BUDGET = "Budget"
CONNECTION = "Connection"

TargetOption = Annotated[
    list[Target] | None,
    typer.Option(
        "--target", help="A loader that must accept the artifact; give it again for more.", rich_help_panel=GRID
    ),
]
FormatOption = Annotated[
    list[Format] | None,
    typer.Option(
        "--format",
        help="Checkpoint layout; give it again for a further folder inside the artifact, from the same run.",
        show_default=str(DEFAULT_FORMATS[0]),
        rich_help_panel=GRID,
    ),
]
PinOption = Annotated[bool | None, typer.Option("--pin/--no-pin", help="Keep it whatever the time says.")]
UntilOption = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="When it goes, like 2030-01-01T00:00:00Z.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, errors as JSON on stderr.")]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Address of the service; else BITMILL_URL.",
        show_default="http://127.0.0.1:8080",
        rich_help_panel=CONNECTION,
    ),
]
ApiKeyOption = Annotated[
    str | None,
    typer.Option("--api-key", help="Bearer key; better in BITMILL_API_KEY.", rich_help_panel=CONNECTION),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionBundle:
    """What was typed of many options: fields of a request, without what was not given."""

    values: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def parameters() -> Iterator[inspect.Parameter]:
        """Yields a command's parameter for each of the options."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationOptions(OptionBundle):
    """What was typed about the method."""

    @staticmethod
    def parameters() -> Iterator[inspect.Parameter]:
        """Yields a command's parameter for each option of each method."""
        yield _parameter("method", Method, _words(", ".join(Method) + ".", str(Method.GPTQ), GRID))
        yield _parameter(
            "preset", Preset, _words("Values between time and accuracy; options go before them.", "default", GRID)
        )
        panels = {name: panel for panel, names in _panels() for name in names}
        for name, declared in all_options().items():
            yield _declared_parameter(declared, panels[name])
        order = f"{GPTQConfig().order}"
        for name, words in (
            ("desc_act", "Another spelling of --order: by falling activation."),
            ("static_groups", "Another spelling of --order: groups are fixed first."),
        ):
            yield _parameter(name, bool, _words(words, f"as in {order}", GPTQConfig.method.upper()))

    def given(self) -> dict[str, Any]:
        """Returns the fields of a request."""
        fields = {name: str(value) if isinstance(value, StrEnum) else value for name, value in self.values.items()}
        if "dynamic" in fields:
            fields["dynamic"] = _parsed(fields["dynamic"])
        return {"method": str(Method.GPTQ), **fields}

    def config(self) -> QuantizationConfig:
        """Returns the checked config; raises InvalidConfigError naming the field."""
        return config_from_dict(self.given())


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationOptions(OptionBundle):
    """What was typed about the calibration."""

    @staticmethod
    def parameters() -> Iterator[inspect.Parameter]:
        """Yields a command's parameter for each option of the draw."""
        for declared in declared_options(CalibrationConfig).values():
            yield _declared_parameter(declared, CALIBRATION)

    def given(self) -> dict[str, Any]:
        """Returns what was typed."""
        return {name: str(value) if isinstance(value, StrEnum) else value for name, value in self.values.items()}

    def config(self) -> CalibrationConfig:
        """Returns the checked config; raises InvalidConfigError naming the field."""
        return CalibrationConfig.from_dict(self.given())


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetOptions(OptionBundle):
    """What was typed about a budget."""

    prefix: ClassVar = "budget_"

    @staticmethod
    def parameters() -> Iterator[inspect.Parameter]:
        """Yields a command's parameter for each option of a budget."""
        for declared in declared_options(BudgetConfig).values():
            yield _declared_parameter(replace(declared, name=f"{BudgetOptions.prefix}{declared.name}"), BUDGET)

    def given(self) -> dict[str, Any]:
        """Returns what was typed, by the fields of a request's `budget`."""
        return {name.removeprefix(self.prefix): value for name, value in self.values.items()}

    def config(self) -> BudgetConfig | None:
        """Returns the checked config, None where no budget was typed; raises InvalidConfigError naming the field."""
        return BudgetConfig.from_dict(self.given()) if self.values else None


@dataclass(frozen=True, slots=True)
class _Bundle:
    """A parameter of a command that stands for many options."""

    name: str
    kind: type[OptionBundle]

    def take(self, values: dict[str, Any]) -> None:
        """Replaces the options in a command's arguments by the bundle."""
        own = {parameter.name: values.pop(parameter.name) for parameter in self.kind.parameters()}
        values[self.name] = self.kind(values={name: value for name, value in own.items() if value is not None})


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command one parameter for each option that its bundles stand for."""
    signature = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    bundles: list[_Bundle] = []
    for parameter in signature.parameters.values():
        if isinstance(parameter.annotation, type) and issubclass(parameter.annotation, OptionBundle):
            bundles.append(_Bundle(parameter.name, parameter.annotation))
            parameters += bundles[-1].kind.parameters()
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    def run(**values: Any) -> None:  # noqa: ANN401 - whatever the command takes
        for bundle in bundles:
            bundle.take(values)
        command(**values)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # functions take it
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _panels() -> Iterator[tuple[str, frozenset[str]]]:
    """Yields the heading of each group of options, the general ones last so that they win."""
    for method, config_class in reversed(CONFIG_CLASSES.items()):
        yield method.upper(), frozenset(declared_options(config_class))
    yield GRID, frozenset(declared_options(QuantizationConfig))


def _declared_parameter(declared: DeclaredOption, panel: str) -> inspect.Parameter:
    default = declared.default
    shown = "none" if declared.type is Overrides else str(default).lower() if default is not None else "none"
    return _parameter(declared.name, declared.type, _words(declared.option.help, shown, panel))


def _words(words: str, default: str, panel: str) -> dict[str, Any]:
    return {"help": words, "show_default": default, "rich_help_panel": panel}


def _parameter(name: str, kind: type[Any], words: dict[str, Any]) -> inspect.Parameter:
    """Returns an optional parameter, None where it is not typed."""
    flag = f"--{name.replace('_', '-')}"
    if kind is bool:
        option = typer.Option(f"{flag}/--no-{flag[2:]}", **words)
    elif kind is Overrides:
        kind, option = str, typer.Option(flag, metavar="JSON", **words)
    else:
        option = typer.Option(flag, **words)
    annotation = Annotated[kind | None, option]  # type: ignore[valid-type]  # a type that is known only here
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidConfigError("dynamic", text, f"not JSON ({error})", FORM) from error
