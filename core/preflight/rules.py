"""The words of the loaders' table: programs, grids, and the kinds of rows. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from core.configs import Format

Shapes = Mapping[str, tuple[int, int]]
"""Linear name to (out_features, in_features)."""


class Target(StrEnum):
    """The programs that an artifact can be meant for."""

    VLLM = "vllm"
    TRANSFORMERS = "transformers"
    GPTQMODEL = "gptqmodel"


class Severity(StrEnum):
    """What breaking a rule means."""

    REFUSE = "refuse"
    """The target cannot load the artifact, or computes something else with it."""
    SLOWER = "slower"
    """The target loads it, but not with its fastest kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The part of a quantization config that loaders care about. group_size: -1 is one group per row."""

    bits: int
    group_size: int
    sym: bool

    def __str__(self) -> str:
        """Returns the spelling that users know."""
        return f"bits={self.bits}, group_size={self.group_size}, sym={str(self.sym).lower()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionRule:
    """One option of the grid must have one of these values.

    row_group_allowed: a group size that equals every linear's in_features is taken too. where_sym: the grids that it
    is about, None for both kinds.
    """

    target: Target
    field: str
    allowed: tuple[int | bool, ...]
    reason: str
    versions: str
    source: str
    layout: Format = Format.GPTQ
    where_sym: bool | None = None
    row_group_allowed: bool = False
    severity: Severity = Severity.REFUSE


class Multiple(StrEnum):
    """Multiples that hang on the grid and not only on the loader."""

    CODES_PER_WORD = "codes_per_word"
    GROUP_SIZE = "group_size"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeRule:
    """A linear's out_features or in_features must be a multiple; fused: summed over linears that are joined."""

    target: Target
    field: str
    multiple_of: int | Multiple
    reason: str
    versions: str
    source: str
    layout: Format = Format.GPTQ
    fused: bool = False
    severity: Severity = Severity.REFUSE


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutRule:
    """The target does not read the layout at all."""

    target: Target
    layout: Format
    reason: str
    versions: str
    source: str
    field: str = "formats"
    severity: Severity = Severity.REFUSE


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyRule:
    """A loader that cannot load one family's artifacts in a layout, whatever the grid; tests/loaders shows GPTQ's.

    dense_blocks: only where some of the blocks hold no experts.
    """

    target: Target
    model_type: str
    reason: str
    versions: str
    layout: Format = Format.GPTQ
    dense_blocks: bool = False


Rule = OptionRule | ShapeRule | LayoutRule
