"""What every method shares: the grid, and other options for single linears by pattern."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, ClassVar, Self

from core.configs.options import check_options, declared_options, option, refuse_unknown
from core.configs.values import BITS, Method, Preset
from core.errors import InvalidConfigError
from core.overrides import Overrides, skips

SCHEMA_VERSION = 1
NO_OVERRIDES = Overrides({})


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationConfig:
    """The grid, for every method; an option's words and range stand in its declaration.

    A group size must divide every linear's in_features, which is checked against the model in `core.preflight`.
    `dynamic` takes a plain mapping too.
    """

    method: ClassVar[Method]
    presets: ClassVar[Mapping[Preset, Mapping[str, Any]]] = {}
    """What each preset sets; a method without presets has none."""
    needs_calibration: ClassVar[bool] = True
    """Whether the method measures on calibration text."""

    bits: int = option(
        4,
        help="Bits per weight.",
        choices=BITS,
        reason="not a supported width",
        allowed="2, 3, 4 or 8",
        per_linear=True,
    )
    group_size: int = option(
        128,
        help="Inputs that share one scale; -1: a whole row. Must divide every linear's inputs.",
        low=-1,
        never=(0,),
        reason="not a group size",
        allowed="-1 (one group per row) or a positive divisor of every linear's in_features",
        per_linear=True,
    )
    sym: bool = option(
        True,
        help="Zero point fixed at the middle of the grid (GPTQ version 1), or one per group (version 2).",
        per_linear=True,
    )
    lm_head: bool = option(
        False,
        help="Quantize the output head too; one that is tied to the embedding is untied, which stays in float.",
    )
    embeddings: bool = option(
        False,
        help=(
            "Pack the input embedding too, rounded to nearest on searched scales, in groups along the vocabulary; of "
            "the loaders gptqmodel alone reads it. A head that shares its tensor must be quantized with it."
        ),
        later=True,
    )
    dynamic: Overrides = option(
        NO_OVERRIDES,
        help=(
            "Other options for single linears: `+:regex` with options, `-:regex` with none to leave linears in float. "
            "The first pattern that matches a stored name from its start decides; one that decides nothing is refused."
        ),
    )

    def __post_init__(self) -> None:
        """Raises InvalidConfigError, naming the field, where a value is out of range."""
        check_options(self)
        object.__setattr__(self, "dynamic", Overrides.from_value(self.dynamic))
        for pattern in self.dynamic:
            self._changed_by(pattern)

    def for_linear(self, name: str) -> Self | None:
        """Returns one linear's config, without `dynamic`; None where it stays in float. name: as stored."""
        if not self.dynamic:
            return self
        pattern = self.dynamic.match(name)
        if pattern is None:
            return replace(self, dynamic=NO_OVERRIDES)
        return None if skips(pattern) else self._changed_by(pattern)

    @classmethod
    def per_linear(cls) -> frozenset[str]:
        """Returns the options that `dynamic` may change."""
        return frozenset(name for name, declared in declared_options(cls).items() if declared.option.per_linear)

    @property
    def always_sym(self) -> bool:
        """Whether no linear can have an asymmetric grid."""
        return self.sym and all(changes.get("sym", True) for changes in self.dynamic.values())

    @property
    def preset(self) -> Preset | None:
        """Returns the preset whose values these are, None where an option differs from all of them."""
        for name, values in self.presets.items():
            if all(getattr(self, option) == value for option, value in values.items()):
                return name
        return None

    def _changed_by(self, pattern: str) -> Self:
        """Returns the config with a pattern's options; raises InvalidConfigError where one is unknown or wrong."""
        changes = self.dynamic[pattern]
        try:
            refuse_unknown(changes, self.per_linear())
            return replace(self, dynamic=NO_OVERRIDES, **changes)
        except InvalidConfigError as error:
            reason = f"{error.field} of {pattern}: {error.reason}"
            raise InvalidConfigError("dynamic", dict(changes), reason, error.allowed) from error

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values, with `method` and `schema_version`; later options only where they are used."""
        options = declared_options(type(self))
        values = {
            name: str(value) if isinstance(value, StrEnum) else value
            for name, value in asdict(self).items()
            if not options[name].option.later or value != options[name].default
        }
        values["dynamic"] = self.dynamic.to_pairs()
        return {"schema_version": SCHEMA_VERSION, "method": str(self.method), **values}
