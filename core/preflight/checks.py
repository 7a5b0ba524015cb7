"""Compares a config with a model and with the loaders that the artifact is meant for, before any work starts.

It refuses or warns; it never changes a value. Standard library only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from core.configs import (
    BITS,
    DEFAULT_FORMATS,
    CalibrationConfig,
    Format,
    GPTQConfig,
    Order,
    QuantizationConfig,
    parse_formats,
)
from core.errors import InvalidConfigError, ModelProblem, ModelRefusedError, TargetRefusedError
from core.preflight.architectures import CONV1D_MODEL_TYPES
from core.preflight.mixed import (
    grid_of,
    linear_grids,
    loads_mixed,
    mixed_violations,
    refuse_idle_patterns,
    shapes_by_grid,
)
from core.preflight.rules import Grid, Severity
from core.preflight.targets import codes_per_word, family_refusal, nearest_grid, parse_targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.preflight.rules import Target
    from core.preflight.source import ModelFacts

MAX_DIVISORS_SHOWN = 8
SMALLEST_USEFUL_GROUP = 16  # below it the scales outweigh what they save


def check_config(
    config: QuantizationConfig,
    facts: ModelFacts,
    targets: Sequence[str] = (),
    calibration: CalibrationConfig | None = None,
    formats: Sequence[str] = DEFAULT_FORMATS,
) -> list[str]:
    """Returns warnings, one sentence each, or raises what makes the run pointless.

    InvalidConfigError: a group size that does not divide a linear's in_features (with those that do), a width whose
    codes do not fill whole words, calibration windows longer than the model's positions, a format that cannot hold
    the result. TargetRefusedError: a loader of `targets` can load none of the formats that would be written.
    ModelRefusedError: the model has no linear to quantize.
    """
    _refuse_nothing_to_do(facts)
    facts = facts.planned(config)
    written = parse_formats(formats)
    _check_formats(written, config, facts)
    refuse_idle_patterns(config, facts.linears)
    _refuse_feeding_no_experts(config, facts)
    for grid, linears in shapes_by_grid(linear_grids(config, facts.linears), facts.linears).items():
        part = replace(facts, linears=linears)
        _check_group_size(grid, part)
        _check_packing(grid, part)
    warnings = [f"{facts.fused_experts} tensors of fused experts stay in float."] if facts.fused_experts else []
    if calibration is not None and config.needs_calibration:
        warnings += _check_calibration(calibration, facts)
    for target in parse_targets(targets):
        warnings += _check_target(target, config, facts, written)
    return warnings


def working_group_sizes(facts: ModelFacts) -> list[int]:
    """Returns every group size of 16 or more that divides every linear's in_features, ascending."""
    widths = {in_features for _, in_features in facts.linears.values()}
    return [size for size in range(SMALLEST_USEFUL_GROUP, min(widths) + 1) if not any(width % size for width in widths)]


def _refuse_nothing_to_do(facts: ModelFacts) -> None:
    if not facts.linears:
        raise ModelRefusedError(
            ModelProblem.UNSUPPORTED_ARCHITECTURE,
            "The model's blocks hold no linear that can be quantized.",
            "Give a decoder-only text model with dense linears.",
        )


def _refuse_feeding_no_experts(config: QuantizationConfig, facts: ModelFacts) -> None:
    if isinstance(config, GPTQConfig) and config.feed_all_experts and not facts.experts:
        raise InvalidConfigError("feed_all_experts", True, "the model has no experts that are quantized", "false")  # noqa: FBT003 - the value that was given


def _check_group_size(grid: Grid, facts: ModelFacts) -> None:
    if grid.group_size == -1:
        return
    for name, (_, in_features) in facts.linears.items():
        if in_features % grid.group_size:
            raise InvalidConfigError(
                "group_size",
                grid.group_size,
                f"it does not divide the {in_features} inputs of {name}",
                ", ".join(map(str, [-1, *_closest(working_group_sizes(facts), grid.group_size)])),
            )


def _closest(sizes: list[int], wanted: int) -> list[int]:
    return sorted(sorted(sizes, key=lambda size: abs(size - wanted))[:MAX_DIVISORS_SHOWN])


def _check_packing(grid: Grid, facts: ModelFacts) -> None:
    codes = codes_per_word(grid.bits)
    for name, shape in facts.linears.items():
        if any(size % codes for size in shape):
            possible = [bits for bits in BITS if not _unpackable(bits, facts)]
            raise InvalidConfigError(
                "bits",
                grid.bits,
                f"{name} is {shape[0]} x {shape[1]}, and codes of {grid.bits} bits fill whole words by {codes}",
                ", ".join(map(str, possible)) or "nothing: no width can be packed for this model",
            )


def _unpackable(bits: int, facts: ModelFacts) -> bool:
    return any(size % codes_per_word(bits) for shape in facts.linears.values() for size in shape)


def _check_calibration(calibration: CalibrationConfig, facts: ModelFacts) -> list[str]:
    if facts.max_positions is not None and calibration.seq_len > facts.max_positions:
        raise InvalidConfigError(
            "calibration.seq_len",
            calibration.seq_len,
            f"the model takes sequences of at most {facts.max_positions:,} tokens",
            f"a whole number up to {facts.max_positions:,}",
        )
    calibrated = facts.calibrated
    widest = max(calibrated, key=lambda name: calibrated[name][1])
    inputs = calibrated[widest][1]
    if calibration.tokens >= inputs:
        return []
    return [
        (
            f"{calibration.tokens:,} calibration tokens are fewer than the {inputs:,} inputs of {widest}: "
            "its Hessian is singular and only damping carries it. Raise samples or seq_len."
        )
    ]


def _check_formats(formats: Sequence[Format], config: QuantizationConfig, facts: ModelFacts) -> None:
    if Format.COMPRESSED_TENSORS not in formats:
        return
    if config.embeddings:
        raise InvalidConfigError(
            "formats",
            str(Format.COMPRESSED_TENSORS),
            "this layout groups an embedding along its width, and the codes are grouped along the vocabulary",
            "gptq, or embeddings=false",
        )
    grouped = any(grid and grid.group_size != -1 for grid in linear_grids(config, facts.linears).values())
    if isinstance(config, GPTQConfig) and config.order is Order.DESC_ACT and grouped:
        raise InvalidConfigError(
            "formats",
            str(Format.COMPRESSED_TENSORS),
            "desc_act without static groups scatters a group's columns, and no reader of this layout gathers them",
            "gptq, or desc_act with static groups",
        )
    if facts.model_type in CONV1D_MODEL_TYPES:
        raise InvalidConfigError(
            "formats",
            str(Format.COMPRESSED_TENSORS),
            f"{facts.model_type} keeps its matrices in Conv1D modules, which readers of this layout pass over",
            "gptq",
        )


def _check_target(
    target: Target, config: QuantizationConfig, facts: ModelFacts, formats: Sequence[Format]
) -> list[str]:
    """Returns warnings of the first format that the target loads; raises TargetRefusedError where it loads none."""
    shapes = facts.linears
    families = {layout: family_refusal(target, facts.model_type, layout, shapes) for layout in formats}
    for layout in formats:
        if loads_mixed(target, config, shapes, layout) and families[layout] is None:
            slower = {broken.detail: None for broken in mixed_violations(target, config, shapes, layout)}
            return [f"{target} loads this, but not with its fastest kernel: {detail}." for detail in slower]
    family = families[formats[0]]
    if family is not None:
        raise TargetRefusedError(target, "model_type", family.reason, _other_layout(target, config, facts, formats))
    refusals = [
        violation
        for violation in mixed_violations(target, config, shapes, formats[0])
        if violation.severity is Severity.REFUSE
    ]
    raise TargetRefusedError(
        target,
        refusals[0].rule.field,
        "; ".join(dict.fromkeys(refusal.detail for refusal in refusals)),
        _nearest(target, config, facts, formats),
    )


def _other_layout(target: Target, config: QuantizationConfig, facts: ModelFacts, formats: Sequence[Format]) -> str:
    """Returns the layout in which the target loads the family, where there is one."""
    for layout in Format:
        refused = family_refusal(target, facts.model_type, layout, facts.linears)
        if layout not in formats and refused is None and loads_mixed(target, config, facts.linears, layout):
            return f"formats={layout}"
    return "another target for this family"


def _nearest(target: Target, config: QuantizationConfig, facts: ModelFacts, formats: Sequence[Format]) -> str:
    """Returns the same grids in another format where they are loaded, else the nearest single grid in the first."""
    grid = grid_of(config)
    if config.embeddings and loads_mixed(target, replace(config, embeddings=False), facts.linears, formats[0]):
        return "the same with embeddings=false"
    for layout in Format:
        if layout not in formats and loads_mixed(target, config, facts.linears, layout):
            return f"formats={layout} with {grid}{' and the same dynamic' if config.dynamic else ''}"
    nearest = nearest_grid(target, grid, facts.linears, formats[0])
    return f"{nearest}{' without dynamic' if config.dynamic else ''}" if nearest else "none for this model"
