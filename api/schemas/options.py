"""Makes the fields of a request from the options that the configs declare: same names, words and defaults.

Types are checked here, ranges by the configs, whose refusals name the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from core.configs.options import DeclaredOption
from core.overrides import MAX_PATTERNS, Overrides

INT32_MAX = 2**31 - 1
DYNAMIC_EXAMPLE = {r"+:.*\.down_proj": {"bits": 8}, r"-:model\.layers\.0\.": {}}


class Strict(BaseModel):
    """Base of everything that is read: nothing is converted, nothing unknown is dropped."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def options_model(name: str, options: Mapping[str, DeclaredOption], words: str) -> type[Strict]:
    """Returns a model with one field for each option; words: what it is, for the document."""
    definitions: dict[str, Any] = {option: _field(declared) for option, declared in options.items()}
    model: type[Strict] = create_model(name, __base__=Strict, __doc__=words, **definitions)
    return model


def _field(declared: DeclaredOption) -> tuple[Any, Any]:
    """Returns the type and the field."""
    option, words = declared.option, declared.option.help
    if declared.type is Overrides:
        entries = dict[str, dict[str, bool | float | int | str]]
        return entries, Field(default={}, max_length=MAX_PATTERNS, description=words, examples=[DYNAMIC_EXAMPLE])
    if isinstance(declared.type, type) and issubclass(declared.type, StrEnum):
        return Annotated[declared.type, Field(strict=False)], Field(default=declared.default, description=words)
    if declared.type is not int:
        return declared.type, Field(default=declared.default, description=words)
    low, high = option.low, option.high or INT32_MAX
    shown: dict[str, Any] | None = {"enum": list(option.choices)} if option.choices else None
    return int, Field(default=declared.default, ge=low, le=high, json_schema_extra=shown, description=words)
