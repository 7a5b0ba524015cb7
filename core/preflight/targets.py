"""What of the loaders' table a grid breaks on given shapes; used before a run, and after it on an artifact's files.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from core.configs import BITS, Format
from core.errors import InvalidConfigError
from core.preflight.architectures import BLOCK_NUMBER, NUMBERED_EXPERT
from core.preflight.loader_table import FAMILY_RULES, FUSED_LINEARS, RULES, TORCH_GROUP_SIZES
from core.preflight.rules import (
    FamilyRule,
    Grid,
    LayoutRule,
    Multiple,
    OptionRule,
    Rule,
    Severity,
    ShapeRule,
    Shapes,
    Target,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One broken rule. detail: the value, the reason and, for a shape, the linear; no full stop."""

    rule: Rule
    detail: str

    @property
    def severity(self) -> Severity:
        """Returns what breaking the rule means."""
        return self.rule.severity


def parse_targets(names: Sequence[str]) -> tuple[Target, ...]:
    """Returns the targets without repetition; raises InvalidConfigError on a name that is none."""
    for name in names:
        if name not in set(Target):
            raise InvalidConfigError("targets", name, "unknown loader", ", ".join(Target))
    return tuple(dict.fromkeys(Target(name) for name in names))


def family_refusal(target: Target, model_type: str, layout: Format, shapes: Shapes) -> FamilyRule | None:
    """Returns the row that says why the target cannot load the family's artifacts; None where it can."""
    dense_blocks = has_dense_blocks(shapes)
    rows = (
        rule
        for rule in FAMILY_RULES
        if (rule.target, rule.model_type, rule.layout) == (target, model_type, layout)
        and (dense_blocks or not rule.dense_blocks)
    )
    return next(rows, None)


def has_dense_blocks(shapes: Shapes) -> bool:
    """Whether blocks without experts stand among those with experts."""
    blocks = {name: BLOCK_NUMBER.search(name) for name in shapes}
    with_experts = {number[1] for name, number in blocks.items() if number and NUMBERED_EXPERT.search(name)}
    return bool(with_experts) and any(number and number[1] not in with_experts for number in blocks.values())


def violations(target: Target, grid: Grid, shapes: Shapes, layout: Format = Format.GPTQ) -> list[Violation]:
    """Returns every rule that the grid breaks on linears of these shapes in this layout, in the table's order."""
    found = []
    for rule in RULES:
        if rule.target == target and rule.layout == layout:
            detail = _detail(rule, grid, shapes)
            if detail:
                found.append(Violation(rule=rule, detail=detail))
    return found


def loads(target: Target, grid: Grid, shapes: Shapes, layout: Format = Format.GPTQ) -> bool:
    """Whether the target loads the grid on linears of these shapes in this layout."""
    return not any(broken.severity is Severity.REFUSE for broken in violations(target, grid, shapes, layout))


def nearest_grid(target: Target, grid: Grid, shapes: Shapes, layout: Format = Format.GPTQ) -> Grid | None:
    """Returns the loadable grid that differs in the fewest options, then least; None if there is none."""
    candidates = [candidate for candidate in _candidates() if loads(target, candidate, shapes, layout)]
    return min(candidates, key=lambda candidate: _distance(grid, candidate), default=None)


def fused_out_features(shapes: Shapes) -> dict[str, int]:
    """Returns the out_features that the loader sees: of q, k and v (gate and up) together under each one's name."""
    out_features = {name: shape[0] for name, shape in shapes.items()}
    for family in FUSED_LINEARS:
        for name in shapes:
            parent, _, last = name.rpartition(".")
            if last in family:
                members = [f"{parent}.{member}" for member in family]
                out_features[name] = sum(shapes[member][0] for member in members if member in shapes)
    return out_features


def codes_per_word(bits: int) -> int:
    """Returns how many codes fill whole 32-bit words: 32/bits, and 32 codes in three words for 3 bits."""
    return 32 if bits == 3 else 32 // bits  # noqa: PLR2004 - the one width that does not divide 32


def _detail(rule: Rule, grid: Grid, shapes: Shapes) -> str:
    """Returns what breaks the rule, nothing where it is kept."""
    match rule:
        case OptionRule():
            return _option_detail(rule, grid, shapes)
        case ShapeRule():
            return _shape_detail(rule, grid, shapes)
        case LayoutRule():
            return f"{rule.field}={rule.layout}: {rule.reason}"
        case _:
            assert_never(rule)


def _option_detail(rule: OptionRule, grid: Grid, shapes: Shapes) -> str:
    value = getattr(grid, rule.field)
    if value in rule.allowed or rule.where_sym not in {None, grid.sym}:
        return ""
    if rule.row_group_allowed and shapes and all(value == in_features for _, in_features in shapes.values()):
        return ""
    allowed = ", ".join(str(option).lower() for option in rule.allowed)
    return f"{rule.field}={str(value).lower()}: {rule.reason} ({allowed})"


def _shape_detail(rule: ShapeRule, grid: Grid, shapes: Shapes) -> str:
    multiple = _multiple(rule, grid)
    out_features = fused_out_features(shapes) if rule.fused else {name: shape[0] for name, shape in shapes.items()}
    for name, (_, in_features) in shapes.items():
        size = in_features if rule.field == "in_features" else out_features[name]
        if size % multiple:
            return f"{name} has {rule.field} {size}, not a multiple of {multiple}: {rule.reason}"
    return ""


def _multiple(rule: ShapeRule, grid: Grid) -> int:
    if rule.multiple_of == Multiple.GROUP_SIZE:
        return 1 if grid.group_size == -1 else grid.group_size
    if rule.multiple_of == Multiple.CODES_PER_WORD:
        return codes_per_word(grid.bits)
    return int(rule.multiple_of)


def _candidates() -> list[Grid]:
    return [
        Grid(bits=bits, group_size=group_size, sym=sym)
        for bits in BITS
        for group_size in TORCH_GROUP_SIZES
        for sym in (True, False)
    ]


def _distance(grid: Grid, other: Grid) -> tuple[int, int, float]:
    """Returns the options that differ, the bits apart, the ratio of the group sizes (-1 is infinitely far)."""
    differing = (grid.bits != other.bits) + (grid.group_size != other.group_size) + (grid.sym != other.sym)
    wide, narrow = max(grid.group_size, other.group_size), min(grid.group_size, other.group_size)
    ratio = float("inf") if wide != narrow and narrow == -1 else wide / narrow
    return differing, abs(grid.bits - other.bits), ratio
