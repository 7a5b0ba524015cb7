"""Turns a user's options into frozen, checked values and back into plain dicts; the only place that writes defaults.

Standard library only: the API validates with this module and its image carries no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any, ClassVar, Self, TypeVar

from core.errors import InvalidConfigError
from core.overrides import Overrides, skips

E = TypeVar("E", bound=StrEnum)

SCHEMA_VERSION = 1
NO_OVERRIDES = Overrides({})
BITS = (2, 3, 4, 8)


class Method(StrEnum):
    """The algorithms that a config class stands for."""

    GPTQ = "gptq"
    RTN = "rtn"


class Order(StrEnum):
    """In which order a linear's columns are solved, and where its group scales come from."""

    NATURAL = "natural"
    """Left to right; a group's scales are taken from the live, already compensated weights."""
    NATURAL_STATIC = "natural_static"
    """Left to right; all scales are fixed before the first column is solved."""
    DESC_ACT = "desc_act"
    """By falling Hessian diagonal, groups formed along that order: `g_idx` is not monotone, inference gathers."""
    DESC_ACT_STATIC = "desc_act_static"
    """By falling Hessian diagonal within fixed, contiguous groups: free at inference."""

    @classmethod
    def from_flags(cls, *, desc_act: bool, static_groups: bool) -> Order:
        """Returns the order that the two flags of other tools spell."""
        if desc_act:
            return cls.DESC_ACT_STATIC if static_groups else cls.DESC_ACT
        return cls.NATURAL_STATIC if static_groups else cls.NATURAL

    @property
    def sorts_columns(self) -> bool:
        """Whether columns are solved by falling Hessian diagonal."""
        return self in {Order.DESC_ACT, Order.DESC_ACT_STATIC}

    @property
    def fixes_groups(self) -> bool:
        """Whether scales are fixed before the first column is solved."""
        return self in {Order.NATURAL_STATIC, Order.DESC_ACT_STATIC}


class ScaleSearch(StrEnum):
    """How a group's scale is chosen from its weights."""

    MINMAX = "minmax"
    """The range of the weights, as in the paper."""
    HESSIAN = "hessian"
    """Shrink factors, squared rounding differences weighted by the Hessian's diagonal."""
    CURVATURE = "curvature"
    """Shrink factors, weighted by 1/U_jj², the exact cost of a rounding difference in GPTQ."""


class Format(StrEnum):
    """The checkpoint layouts that one run can be written in; the codes are the same in each."""

    GPTQ = "gptq"
    """GPTQ version 1 for symmetric grids, version 2 for asymmetric ones."""
    COMPRESSED_TENSORS = "compressed-tensors"
    """`pack-quantized`: no gather at inference, hence no desc_act without static groups."""


DEFAULT_FORMATS = (Format.GPTQ,)
"""The first format is the artifact folder itself; each further one is a folder in it, named after the format."""


def _require(condition: bool, field: str, value: object, reason: str, allowed: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not condition:
        raise InvalidConfigError(field, value, reason, allowed)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationConfig:
    """What every method shares: the grid.

    bits: 2, 3, 4 or 8. group_size: inputs that share one scale, -1 for the whole row; it must divide every
    linear's in_features (checked against the model in `core.preflight`). sym: zero point fixed at 2^(bits-1).
    dynamic: other options for single linears, or none at all, by patterns of their stored names (`core.overrides`); a
    plain mapping is taken too.
    """

    method: ClassVar[Method]
    per_linear: ClassVar[frozenset[str]] = frozenset({"bits", "group_size", "sym"})
    """The options that `dynamic` may change."""

    bits: int = 4
    group_size: int = 128
    sym: bool = True
    dynamic: Overrides = NO_OVERRIDES

    def __post_init__(self) -> None:
        """Raises InvalidConfigError, naming the field, where a value is out of range."""
        _require(_is_int(self.bits) and self.bits in BITS, "bits", self.bits, "not a supported width", "2, 3, 4 or 8")
        _require(
            _is_int(self.group_size) and (self.group_size == -1 or self.group_size >= 1),
            "group_size",
            self.group_size,
            "not a group size",
            "-1 (one group per row) or a positive divisor of every linear's in_features",
        )
        _require(isinstance(self.sym, bool), "sym", self.sym, "not a boolean", "true or false")
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

    @property
    def always_sym(self) -> bool:
        """Whether no linear can have an asymmetric grid."""
        return self.sym and all(changes.get("sym", True) for changes in self.dynamic.values())

    def _changed_by(self, pattern: str) -> Self:
        """Returns the config with a pattern's options; raises InvalidConfigError where one is unknown or wrong."""
        changes = self.dynamic[pattern]
        try:
            _refuse_unknown(changes, self.per_linear)
            return replace(self, dynamic=NO_OVERRIDES, **changes)
        except InvalidConfigError as error:
            reason = f"{error.field} of {pattern}: {error.reason}"
            raise InvalidConfigError("dynamic", dict(changes), reason, error.allowed) from error

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values, with `method` and `schema_version`."""
        values = {name: str(value) if isinstance(value, StrEnum) else value for name, value in asdict(self).items()}
        values["dynamic"] = self.dynamic.to_pairs()
        return {"schema_version": SCHEMA_VERSION, "method": str(self.method), **values}


@dataclass(frozen=True, slots=True, kw_only=True)
class RTNConfig(QuantizationConfig):
    """Round-to-nearest on min-max scales: no calibration, the floor that every other method must beat."""

    method: ClassVar[Method] = Method.RTN


@dataclass(frozen=True, slots=True, kw_only=True)
class GPTQConfig(QuantizationConfig):
    """GPTQ (Frantar et al. 2022, arXiv 2210.17323).

    order: column order and source of the scales. damp_percent: a fraction (not a percentage) of mean diag H that is
    added to the diagonal, 0 < damp_percent < 1. true_sequential: a linear is solved on inputs that already carry the
    quantized linears before it in its block. scale_search: how a group's scale is chosen. signed_scales: a searched
    scale of a symmetric group may be negative, so that its largest weight takes the grid's extra negative level.
    mismatch_alpha: 0 to 1, how far the target of a linear moves from its own weights towards those that reproduce the
    float model's outputs from the quantized model's inputs (Qronos-class, arXiv 2505.11695); 0 runs no float path.
    """

    method: ClassVar[Method] = Method.GPTQ
    per_linear: ClassVar[frozenset[str]] = QuantizationConfig.per_linear | {"damp_percent", "scale_search"}

    order: Order = Order.DESC_ACT_STATIC
    damp_percent: float = 0.05
    true_sequential: bool = True
    scale_search: ScaleSearch = ScaleSearch.CURVATURE
    signed_scales: bool = True
    mismatch_alpha: float = 0.5

    def __post_init__(self) -> None:
        """Raises InvalidConfigError, naming the field, where a value is out of range."""
        # Slotted dataclasses are rebuilt by the decorator, so a bare super() would name the discarded class.
        QuantizationConfig.__post_init__(self)
        object.__setattr__(self, "order", _enum(Order, "order", self.order))
        object.__setattr__(self, "scale_search", _enum(ScaleSearch, "scale_search", self.scale_search))
        _require(
            isinstance(self.damp_percent, float) and 0.0 < self.damp_percent < 1.0,
            "damp_percent",
            self.damp_percent,
            "not a fraction of the mean Hessian diagonal",
            "a fraction between 0 and 1, both excluded",
        )
        for name in ("true_sequential", "signed_scales"):
            _require(isinstance(getattr(self, name), bool), name, getattr(self, name), "not a boolean", "true or false")
        object.__setattr__(self, "mismatch_alpha", _real("mismatch_alpha", self.mismatch_alpha, "a number from 0 to 1"))
        _require(
            0.0 <= self.mismatch_alpha <= 1.0,
            "mismatch_alpha",
            self.mismatch_alpha,
            "out of range",
            "a number from 0 to 1",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationConfig:
    """How many windows of how many tokens are drawn from the calibration text, and with which seed.

    samples: windows, 1 to 65,536. seq_len: tokens per window, 16 to 131,072. seed: 0 to 2^32-1.
    """

    samples: int = 32
    seq_len: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises InvalidConfigError, naming the field, where a value is out of range."""
        for name, low, high in (("samples", 1, 65_536), ("seq_len", 16, 131_072), ("seed", 0, 2**32 - 1)):
            value = getattr(self, name)
            _require(
                _is_int(value) and low <= value <= high,
                f"calibration.{name}",
                value,
                "out of range",
                f"a whole number from {low:,} to {high:,}",
            )

    @property
    def tokens(self) -> int:
        """Returns the number of tokens that all windows hold together."""
        return self.samples * self.seq_len

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Reads what `to_dict` wrote; raises InvalidConfigError on an unknown field."""
        _refuse_unknown(values, {field.name for field in fields(cls)}, prefix="calibration.")
        return cls(**values)


CONFIG_CLASSES: dict[Method, type[QuantizationConfig]] = {Method.GPTQ: GPTQConfig, Method.RTN: RTNConfig}


def config_from_dict(values: dict[str, Any]) -> QuantizationConfig:
    """Reads what `QuantizationConfig.to_dict` wrote.

    Raises InvalidConfigError on an unknown method, an unknown field, another schema version or a value out of range.
    """
    options = dict(values)
    version = options.pop("schema_version", SCHEMA_VERSION)
    _require(version == SCHEMA_VERSION, "schema_version", version, "unknown version", str(SCHEMA_VERSION))
    method = _enum(Method, "method", options.pop("method", Method.GPTQ))
    config_class = CONFIG_CLASSES[method]
    _refuse_unknown(options, {field.name for field in fields(config_class)})
    return config_class(**options)


def parse_formats(names: Sequence[str]) -> tuple[Format, ...]:
    """Returns the formats in their order, each once; raises InvalidConfigError on none or on an unknown one."""
    _require(bool(names), "formats", list(names), "no format", ", ".join(Format))
    return tuple(dict.fromkeys(_enum(Format, "formats", name) for name in names))


def _real(field: str, value: object, allowed: str) -> float:
    """Takes whole numbers too: JSON writes 0 and 1 without a point."""
    _require(isinstance(value, float) or _is_int(value), field, value, "not a number", allowed)
    return float(str(value))


def _enum(kind: type[E], field: str, value: object) -> E:
    try:
        return kind(str(value))
    except ValueError as error:
        raise InvalidConfigError(field, value, "unknown value", ", ".join(kind)) from error


def _refuse_unknown(values: Mapping[str, Any], known: Collection[str], prefix: str = "") -> None:
    for name, value in values.items():
        _require(name in known, f"{prefix}{name}", value, "unknown option", ", ".join(sorted(known)))
