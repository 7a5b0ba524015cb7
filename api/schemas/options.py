"""Makes the fields of a request from the options that the configs declare: same names, words and defaults.

Types are checked here, ranges by the configs, whose refusals name the remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from core.configs import Method
from core.configs.options import DeclaredOption
from core.overrides import MAX_PATTERNS, Overrides

INT32_MAX = 2**31 - 1
METHODS_KEY = "x-methods"
"""Where a field's schema names the methods that have it, where it is not all of them."""
DYNAMIC_EXAMPLE = {r"+:.*\.down_proj": {"bits": 8}, r"-:model\.layers\.0\.": {}}


class Strict(BaseModel):
    """Base of everything that is read: nothing is converted, nothing unknown is dropped."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def options_model(
    name: str,
    options: Mapping[str, DeclaredOption],
    words: str,
    methods: Callable[[str], Collection[str]] = lambda _: tuple(Method),
) -> type[Strict]:
    """Returns a model with one field for each option.

    words: what it is, for the document. methods: those that have an option; told where it is not all of them.
    """
    definitions: dict[str, Any] = {
        option: _field(declared, only_for(methods(option))) for option, declared in options.items()
    }
    model: type[Strict] = create_model(name, __base__=Strict, __doc__=words, **definitions)
    return model


def only_for(methods: Collection[str]) -> dict[str, Any]:
    """Returns what a field's schema says of the methods that have it; nothing where all do."""
    return {} if set(methods) == set(Method) else {METHODS_KEY: [str(method) for method in methods]}


def _field(declared: DeclaredOption, extra: dict[str, Any]) -> tuple[Any, Any]:
    """Returns the type and the field; extra: what its schema says beside that."""
    option, words = declared.option, declared.option.help
    if declared.type is Overrides:
        entries = dict[str, dict[str, bool | float | int | str]]
        return entries, Field(
            default={},
            max_length=MAX_PATTERNS,
            description=words,
            examples=[DYNAMIC_EXAMPLE],
            json_schema_extra=extra,
        )
    if isinstance(declared.type, type) and issubclass(declared.type, StrEnum):
        return Annotated[declared.type, Field(strict=False)], Field(
            default=declared.default, description=words, json_schema_extra=extra
        )
    if declared.type is not int:
        return declared.type, Field(default=declared.default, description=words, json_schema_extra=extra)
    low, high = option.low, option.high or INT32_MAX
    shown: dict[str, Any] = {**extra, **({"enum": list(option.choices)} if option.choices else {})}
    return int, Field(default=declared.default, ge=low, le=high, json_schema_extra=shown, description=words)
