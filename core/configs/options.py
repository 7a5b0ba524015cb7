"""What an option of a config is: words, a range and a default, written once where the option is declared.

Checking, the HTTP schema and the command line are made from this. Standard library only.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar, cast, get_type_hints

from core.errors import InvalidConfigError

E = TypeVar("E", bound=StrEnum)

_KEY = "option"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option's words and range.

    help: one sentence for users. allowed: the range in words, for refusals. low, high: inclusive bounds of a number,
    unless `open_ends`. choices: the only values. never: values inside the bounds that mean nothing. reason: what is
    said of a value outside. per_linear: whether `dynamic` may change it for single linears. later: whether stored
    configs were read by programs before there was the option; at its default it is left out of them, so that workers of
    the version before still take the jobs that do not use it.
    """

    help: str
    allowed: str = ""
    low: float | None = None
    high: float | None = None
    open_ends: bool = False
    choices: tuple[int, ...] = ()
    never: tuple[int, ...] = ()
    reason: str = "out of range"
    per_linear: bool = False
    later: bool = False

    def accepts(self, value: float) -> bool:
        """Whether a number lies in the range."""
        if self.choices:
            return value in self.choices
        if self.open_ends and value in {self.low, self.high}:
            return False
        above = self.low is None or value >= self.low
        return above and (self.high is None or value <= self.high) and value not in self.never


def option(default: Any, *, help: str, **rules: Any) -> Any:  # noqa: A002, ANN401 - a field of whatever type, its words
    """Declares a field of a config; `rules` are the other fields of `Option`."""
    return field(default=default, metadata={_KEY: Option(help=help, **rules)})


@dataclass(frozen=True, slots=True)
class DeclaredOption:
    """An option with its name, type and default. type: bool, int, float, an enum, or a class of its own."""

    name: str
    type: Any
    default: Any
    option: Option


def declared_options(config_class: type[Any]) -> Mapping[str, DeclaredOption]:
    """Returns the options of a config class by name, in the order of declaration."""
    return _read_options(cast("Hashable", config_class))


@cache
def _read_options(config_class: Any) -> Mapping[str, DeclaredOption]:  # noqa: ANN401 - a class, which is hashable
    hints = get_type_hints(config_class)
    return {
        item.name: DeclaredOption(item.name, hints[item.name], item.default, item.metadata[_KEY])
        for item in fields(config_class)
    }


def check_options(config: Any, prefix: str = "") -> None:  # noqa: ANN401 - any of the frozen config classes
    """Checks every option of a frozen config and stores numbers and enums in their own types.

    Raises InvalidConfigError, naming the field, where a value is out of range.
    """
    for name, declared in declared_options(type(config)).items():
        object.__setattr__(config, name, _checked(declared, getattr(config, name), f"{prefix}{name}"))


def _checked(declared: DeclaredOption, value: object, field_name: str) -> object:
    option = declared.option
    if isinstance(declared.type, type) and issubclass(declared.type, StrEnum):
        return parse_enum(declared.type, field_name, value)
    if declared.type is bool:
        require(isinstance(value, bool), field_name, value, "not a boolean", "true or false")
    elif declared.type is int:
        require(is_int(value) and option.accepts(int(str(value))), field_name, value, option.reason, option.allowed)
    elif declared.type is float:
        require(isinstance(value, float) or is_int(value), field_name, value, "not a number", option.allowed)
        value = float(str(value))  # JSON writes 0 and 1 without a point
        require(option.accepts(value), field_name, value, option.reason, option.allowed)
    return value


def require(condition: bool, field: str, value: object, reason: str, allowed: str) -> None:  # noqa: FBT001 - reads as an assertion
    """Raises InvalidConfigError unless the condition holds."""
    if not condition:
        raise InvalidConfigError(field, value, reason, allowed)


def is_int(value: object) -> bool:
    """Whether the value is a whole number and no boolean."""
    return isinstance(value, int) and not isinstance(value, bool)


def parse_enum(kind: type[E], field: str, value: object) -> E:
    """Returns the member that the value names; raises InvalidConfigError, listing all, where there is none."""
    try:
        return kind(str(value))
    except ValueError as error:
        raise InvalidConfigError(field, value, "unknown value", ", ".join(kind)) from error


def refuse_unknown(values: Mapping[str, Any], known: Collection[str], prefix: str = "") -> None:
    """Raises InvalidConfigError on a name that is not known."""
    for name, value in values.items():
        require(name in known, f"{prefix}{name}", value, "unknown option", ", ".join(sorted(known)))
