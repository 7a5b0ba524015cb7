"""Linears of one model on different grids: who has which, and what loaders make of it. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from core.configs import Format, QuantizationConfig
from core.errors import InvalidConfigError
from core.preflight.architectures import NUMBERED_EXPERT
from core.preflight.loader_table import (
    FUSED_LINEARS,
    PART_RULES,
    TRANSFORMERS_GPTQ,
    TRANSFORMERS_VERSIONS,
    VLLM_CONFIG,
    VLLM_VERSIONS,
)
from core.preflight.rules import Grid, LayoutRule, Severity, Shapes, Target
from core.preflight.targets import Violation, violations

Grids = Mapping[str, Grid | None]
"""Linear name to its grid; None where it stays in float."""

FUSED_NAMES: Final = dict(zip(FUSED_LINEARS, ("qkv_proj", "gate_up_proj", "w13"), strict=True))
"""What vLLM calls the linears that it joins."""
EXPERTS: Final = ".experts"


def grid_of(config: QuantizationConfig) -> Grid:
    """Returns the part of a linear's config that loaders care about."""
    return Grid(bits=config.bits, group_size=config.group_size, sym=config.sym)


def linear_grids(config: QuantizationConfig, names: Iterable[str]) -> dict[str, Grid | None]:
    """Returns every linear's grid."""
    parts = {name: config.for_linear(name) for name in names}
    return {name: None if part is None else grid_of(part) for name, part in parts.items()}


def shapes_by_grid(grids: Grids, shapes: Shapes) -> dict[Grid, dict[str, tuple[int, int]]]:
    """Returns the quantized linears' shapes, apart by grid."""
    parts: dict[Grid, dict[str, tuple[int, int]]] = {}
    for name, grid in grids.items():
        if grid is not None:
            parts.setdefault(grid, {})[name] = shapes[name]
    return parts


def refuse_idle_patterns(config: QuantizationConfig, names: Iterable[str]) -> None:
    """Raises InvalidConfigError where a pattern decides about no linear, or all linears are skipped."""
    names = list(names)
    deciding = {config.dynamic.match(name) for name in names}
    for pattern in config.dynamic:
        if pattern not in deciding:
            raise InvalidConfigError(
                "dynamic",
                pattern,
                "it matches no linear of the model that an earlier pattern leaves to it",
                f"patterns of names such as {names[0]}",
            )
    if not any(config.for_linear(name) for name in names):
        raise InvalidConfigError("dynamic", list(config.dynamic), "it skips every linear", "at least one linear left")


def mixed_violations(target: Target, config: QuantizationConfig, shapes: Shapes, layout: Format) -> list[Violation]:
    """Returns every rule that the artifact breaks: of each grid on its linears, and of the mixture."""
    grids = linear_grids(config, shapes)
    found = [
        violation
        for grid, part in shapes_by_grid(grids, shapes).items()
        for violation in violations(target, grid, part, layout)
    ]
    if config.dynamic:
        found += _mixture(target, config, grids, layout)
    found += [
        Violation(rule=rule, detail=f"{rule.field}: {rule.reason}")
        for rule in PART_RULES
        if getattr(config, rule.field) and (rule.target, rule.layout) == (target, layout)
    ]
    return found


def loads_mixed(target: Target, config: QuantizationConfig, shapes: Shapes, layout: Format) -> bool:
    """Whether the target loads the artifact in this layout."""
    found = mixed_violations(target, config, shapes, layout)
    return not any(violation.severity is Severity.REFUSE for violation in found)


def _mixture(target: Target, config: QuantizationConfig, grids: Grids, layout: Format) -> Iterator[Violation]:
    match target, layout:
        case Target.VLLM, _:
            yield from _split_families(config, grids, layout)
        case Target.TRANSFORMERS, Format.GPTQ:
            rule = LayoutRule(
                target=target,
                layout=layout,
                field="dynamic",
                reason="its GPTQ loader gives every linear the same grid and does not read dynamic",
                versions=TRANSFORMERS_VERSIONS,
                source=TRANSFORMERS_GPTQ,
            )
            yield Violation(rule=rule, detail=f"dynamic: {rule.reason}")
        case Target.TRANSFORMERS, Format.COMPRESSED_TENSORS:
            quantized = {grid for grid in grids.values() if grid is not None}
            if len(quantized) > 1 and not all(grid.sym for grid in quantized):
                rule = LayoutRule(
                    target=target,
                    layout=layout,
                    field="dynamic",
                    reason="asymmetric grids load only with dequantize=True, which gives every linear the first grid",
                    versions="transformers 5.23.0, compressed-tensors 0.20.0",
                    source="transformers/integrations/compressed_tensors.py (get_dense_scheme)",
                )
                yield Violation(rule=rule, detail=f"dynamic: {rule.reason}")
        case _:
            # gptqmodel reads dynamic, and no other layout.
            return


def joined_linears(names: Iterable[str]) -> dict[str, list[str]]:
    """Returns the linears that vLLM joins, by the name that it gives them together: all experts of a block are one."""
    joined: dict[str, list[str]] = {}
    for name in names:
        whole = _joined_name(name)
        if whole is not None:
            joined.setdefault(whole, []).append(name)
    return joined


def _joined_name(name: str) -> str | None:
    expert = NUMBERED_EXPERT.search(name)
    if expert:
        return f"{name[: expert.start()]}{EXPERTS}"
    parent, _, last = name.rpartition(".")
    return next((f"{parent}.{whole}" for members, whole in FUSED_NAMES.items() if last in members), None)


def _split_families(config: QuantizationConfig, grids: Grids, layout: Format) -> Iterator[Violation]:
    """Yields where linears that vLLM joins are on different grids, or the joined name is not matched like its parts."""
    for joined, (name, *mates) in joined_linears(grids).items():
        reason = ""
        other = next((mate for mate in mates if grids[mate] != grids[name]), None)
        if other is not None:
            reason = f"{name} is joined with {other}, on another grid"
        elif layout is Format.GPTQ and mates:
            part = config.for_linear(joined)
            if (None if part is None else grid_of(part)) != grids[name]:
                reason = f"the patterns match {name}, but not {joined}, which it is joined into"
        if reason:
            rule = LayoutRule(
                target=Target.VLLM,
                layout=layout,
                field="dynamic",
                reason=reason,
                versions=VLLM_VERSIONS,
                source=VLLM_CONFIG,
            )
            yield Violation(rule=rule, detail=f"dynamic: {reason}")
            return
