"""What each loader can load, as one versioned table; used before a run on shapes and after it on an artifact's files.

Rows state facts about the loaders' source at the named version and about one layout of the checkpoint, for one device
(no tensor parallelism). Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from core.configs import BITS, Format
from core.errors import InvalidConfigError
from core.preflight.architectures import BLOCK_NUMBER, NUMBERED_EXPERT

TABLE_VERSION = "2026-11"

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


Rule = OptionRule | ShapeRule | LayoutRule

VLLM_VERSIONS = "vllm main, read in 2026-11"
VLLM_CONFIG = "vllm/model_executor/layers/quantization/auto_gptq.py at 055e47c2"
VLLM_MARLIN = "vllm/model_executor/layers/quantization/utils/marlin_utils.py at 007d5005"
VLLM_COMPRESSED = (
    "vllm/model_executor/layers/quantization/compressed_tensors/schemes/compressed_tensors_wNa16.py (WNA16_*_TYPES_MAP)"
)
GPTQMODEL_VERSIONS = "gptqmodel 7.6.0"
GPTQMODEL_TORCH = "gptqmodel/nn_modules/qlinear/torch.py (TorchLinear.SUPPORTS_*)"
TRANSFORMERS_VERSIONS = "transformers 5.23.0, optimum 2.3.0, gptqmodel 7.6.0"
TRANSFORMERS_GPTQ = "transformers/quantizers/quantizer_gptq.py, through optimum into gptqmodel's TorchLinear"

# The linears that vLLM joins into one matrix, by the last part of their names.
FUSED_LINEARS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("w1", "w3"))

TORCH_GROUP_SIZES = (-1, 16, 32, 64, 128, 256, 512, 1024)


def _gptqmodel_rules(target: Target, versions: str, source: str) -> tuple[Rule, ...]:
    """Returns the rules of gptqmodel's own loader, which transformers calls too."""
    return (
        OptionRule(
            target=target,
            field="bits",
            allowed=BITS,
            reason="no kernel for this width",
            versions=versions,
            source=source,
        ),
        OptionRule(
            target=target,
            field="group_size",
            allowed=TORCH_GROUP_SIZES,
            row_group_allowed=True,
            reason="its kernels take no other group size, unless it is the whole row",
            versions=versions,
            source=source,
        ),
    )


RULES: tuple[Rule, ...] = (
    OptionRule(
        target=Target.VLLM,
        field="bits",
        allowed=(4, 8),
        reason="its GPTQ loader knows 4 and 8 bits only",
        versions=VLLM_VERSIONS,
        source=VLLM_CONFIG,
    ),
    OptionRule(
        target=Target.VLLM,
        field="sym",
        allowed=(True,),
        reason="its GPTQ loader knows symmetric grids only",
        versions=VLLM_VERSIONS,
        source=VLLM_CONFIG,
    ),
    OptionRule(
        target=Target.VLLM,
        field="group_size",
        allowed=(-1, 32, 64, 128),
        reason="its GPTQ loader takes these group sizes only",
        versions=VLLM_VERSIONS,
        source=VLLM_MARLIN,
    ),
    ShapeRule(
        target=Target.VLLM,
        field="in_features",
        multiple_of=Multiple.GROUP_SIZE,
        reason="every group must be full",
        versions=VLLM_VERSIONS,
        source=VLLM_MARLIN,
    ),
    ShapeRule(
        target=Target.VLLM,
        field="out_features",
        multiple_of=Multiple.CODES_PER_WORD,
        fused=True,
        reason="zeros are packed in whole words",
        versions=VLLM_VERSIONS,
        source=VLLM_CONFIG,
    ),
    ShapeRule(
        target=Target.VLLM,
        field="out_features",
        multiple_of=64,
        fused=True,
        severity=Severity.SLOWER,
        reason="the Marlin kernel works in tiles of 64 outputs",
        versions=VLLM_VERSIONS,
        source=VLLM_MARLIN,
    ),
    ShapeRule(
        target=Target.VLLM,
        field="in_features",
        multiple_of=128,
        severity=Severity.SLOWER,
        reason="the Marlin kernel works in tiles of 128 inputs",
        versions=VLLM_VERSIONS,
        source=VLLM_MARLIN,
    ),
    OptionRule(
        target=Target.VLLM,
        layout=Format.COMPRESSED_TENSORS,
        field="bits",
        allowed=(4, 8),
        where_sym=False,
        reason="it knows asymmetric grids of these widths only",
        versions=VLLM_VERSIONS,
        source=VLLM_COMPRESSED,
    ),
    OptionRule(
        target=Target.VLLM,
        layout=Format.COMPRESSED_TENSORS,
        field="bits",
        allowed=(4, 8),
        where_sym=True,
        severity=Severity.SLOWER,
        reason="the Marlin kernel takes these widths only",
        versions=VLLM_VERSIONS,
        source=VLLM_MARLIN,
    ),
    OptionRule(
        target=Target.VLLM,
        layout=Format.COMPRESSED_TENSORS,
        field="group_size",
        allowed=(-1, 32, 64, 128),
        reason="its kernels take these group sizes only",
        versions=VLLM_VERSIONS,
        source=VLLM_MARLIN,
    ),
    ShapeRule(
        target=Target.VLLM,
        layout=Format.COMPRESSED_TENSORS,
        field="in_features",
        multiple_of=Multiple.GROUP_SIZE,
        reason="every group must be full",
        versions=VLLM_VERSIONS,
        source=VLLM_COMPRESSED,
    ),
    ShapeRule(
        target=Target.VLLM,
        layout=Format.COMPRESSED_TENSORS,
        field="out_features",
        multiple_of=64,
        fused=True,
        severity=Severity.SLOWER,
        reason="the Marlin kernel works in tiles of 64 outputs",
        versions=VLLM_VERSIONS,
        source=VLLM_MARLIN,
    ),
    ShapeRule(
        target=Target.VLLM,
        layout=Format.COMPRESSED_TENSORS,
        field="in_features",
        multiple_of=128,
        severity=Severity.SLOWER,
        reason="the Marlin kernel works in tiles of 128 inputs",
        versions=VLLM_VERSIONS,
        source=VLLM_MARLIN,
    ),
    OptionRule(
        target=Target.TRANSFORMERS,
        layout=Format.COMPRESSED_TENSORS,
        field="sym",
        allowed=(True,),
        severity=Severity.SLOWER,
        reason="packed zeros load only with CompressedTensorsConfig(dequantize=True), into float matrices",
        versions="transformers 5.23.0, compressed-tensors 0.20.0",
        source="compressed_tensors/compressors/pack_quantized/base.py (on the meta device zeros stay unpacked)",
    ),
    LayoutRule(
        target=Target.GPTQMODEL,
        layout=Format.COMPRESSED_TENSORS,
        reason="it reads the GPTQ layout only",
        versions=GPTQMODEL_VERSIONS,
        source="gptqmodel/utils/model.py (tensor names qweight, qzeros, scales, g_idx)",
    ),
    *_gptqmodel_rules(Target.TRANSFORMERS, TRANSFORMERS_VERSIONS, TRANSFORMERS_GPTQ),
    *_gptqmodel_rules(Target.GPTQMODEL, GPTQMODEL_VERSIONS, GPTQMODEL_TORCH),
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


FAMILY_RULES: tuple[FamilyRule, ...] = (
    FamilyRule(
        target=Target.TRANSFORMERS,
        model_type="gpt2",
        reason="it initializes c_proj.weight anew, which a quantized module does not have",
        versions=TRANSFORMERS_VERSIONS,
    ),
    FamilyRule(
        target=Target.GPTQMODEL,
        model_type="phi3",
        reason="it splits gate_up_proj, which the checkpoint and transformers keep whole",
        versions=GPTQMODEL_VERSIONS,
    ),
    FamilyRule(
        target=Target.GPTQMODEL,
        model_type="gpt_neox",
        reason="it leaves the head (embed_out) at random values without saying so",
        versions=GPTQMODEL_VERSIONS,
    ),
    *(
        FamilyRule(
            target=Target.TRANSFORMERS,
            model_type=model_type,
            reason="its GPTQ path leaves this family's experts at random values",
            versions=TRANSFORMERS_VERSIONS,
        )
        for model_type in ("deepseek_v2", "deepseek_v3", "glm4_moe", "mixtral", "olmoe", "phimoe", "qwen2_moe")
    ),
    *(
        FamilyRule(
            target=Target.GPTQMODEL,
            model_type=model_type,
            reason="it looks for the experts' linears under other names than the checkpoint's",
            versions=GPTQMODEL_VERSIONS,
        )
        for model_type in ("mixtral", "phimoe")
    ),
    FamilyRule(
        target=Target.GPTQMODEL,
        model_type="glm4_moe",
        reason="its module for the experts cannot call the family's router",
        versions=GPTQMODEL_VERSIONS,
    ),
    FamilyRule(
        target=Target.GPTQMODEL,
        model_type="qwen3_moe",
        reason="it leaves the dense feed-forward of blocks without experts at random values",
        versions=GPTQMODEL_VERSIONS,
        dense_blocks=True,
    ),
    FamilyRule(
        target=Target.TRANSFORMERS,
        layout=Format.COMPRESSED_TENSORS,
        model_type="phimoe",
        reason="it initializes the routers anew, by a name that they do not have",
        versions="transformers 5.23.0, compressed-tensors 0.20.0",
    ),
)


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
