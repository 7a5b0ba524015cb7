"""Which linears must be on one grid, which grids they may be on, and the bytes that each takes on disk.

Linears that a loader joins (q, k and v; gate and up; the experts of a block) are one unit. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from core.configs import BITS, BudgetConfig, Format, QuantizationConfig
from core.errors import InvalidConfigError
from core.preflight.loader_table import FUSED_LINEARS
from core.preflight.mixed import FUSED_NAMES, grid_of
from core.preflight.rules import Grid, Shapes, Target
from core.preflight.source import ModelFacts
from core.preflight.targets import codes_per_word, loads, parse_targets

GROUP_SIZES: Final = (32, 64, 128, -1)
"""Tried beside the config's own."""

EXPERTS: Final = ".experts."
WORD_BYTES: Final = 4
SCALE_BYTES: Final = 2
SHAPE_BYTES: Final = 16
ENTRY_BYTES: Final = 160
"""What a tensor's line in a safetensors header takes besides its name, at most."""
HEADER_BYTES: Final = 4096
TENSORS_PER_LINEAR: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Linears of one block that get the same grid. family: their common name inside the block; linears: stored names.

    grids: what every member can be on, in every target. shapes: (out_features, in_features) by stored name.
    """

    block: int
    family: str
    shapes: Shapes
    grids: tuple[Grid, ...]

    @property
    def weights(self) -> int:
        """Returns the number of weights."""
        return sum(rows * columns for rows, columns in self.shapes.values())

    def size(self, grid: Grid, layout: Format) -> int:
        """Returns the bytes of the members on that grid."""
        return sum(stored_bytes(shape, grid, layout) for shape in self.shapes.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetTask:
    """What is to be chosen. fixed_bytes: of the linears whose grids the user's `dynamic` sets, on disk.

    weights: of all quantized linears. limit_bytes: for all quantized linears together.
    """

    units: tuple[Unit, ...]
    fixed_bytes: int
    weights: int
    limit_bytes: int
    layout: Format

    @property
    def room(self) -> int:
        """Returns the bytes that the units may take together."""
        return self.limit_bytes - self.fixed_bytes

    @property
    def smallest(self) -> int:
        """Returns the bytes that the units take at least."""
        return sum(min(unit.size(grid, self.layout) for grid in unit.grids) for unit in self.units)

    def bits(self, unit_bytes: int) -> float:
        """Returns the bits per quantized weight when the units take that many bytes."""
        return 8 * (unit_bytes + self.fixed_bytes) / self.weights


def budget_task(
    config: QuantizationConfig,
    budget: BudgetConfig,
    facts: ModelFacts,
    targets: Sequence[str],
    formats: Sequence[Format],
) -> BudgetTask:
    """Returns the task; raises InvalidConfigError where the budget is below what any choice can reach.

    Linears that a pattern of the user's decides about keep what it says. The size is that of the first format.
    """
    layout = formats[0]
    grids = {name: config.for_linear(name) for name in facts.linears}
    quantized = [name for name, part in grids.items() if part is not None]
    chosen = [name for name in quantized if config.dynamic.match(name) is None]
    fixed = {name: part for name, part in grids.items() if part is not None and name not in set(chosen)}
    if not chosen:
        raise InvalidConfigError(
            "dynamic", list(config.dynamic), "it leaves a budget nothing to choose", "fewer patterns"
        )
    readers = _layouts(config, parse_targets(targets), formats, facts.linears)
    task = BudgetTask(
        units=tuple(_units(chosen, config, budget, facts, readers)),
        fixed_bytes=sum(stored_bytes(facts.linears[name], grid_of(part), layout) for name, part in fixed.items()),
        weights=sum(rows * columns for rows, columns in (facts.linears[name] for name in quantized)),
        limit_bytes=_limit(budget, facts, quantized),
        layout=layout,
    )
    _refuse_too_small(task, budget, facts, quantized)
    return task


def shared_grids(task: BudgetTask) -> list[Grid]:
    """Returns the grids that every unit may be on."""
    first, *others = task.units
    return [grid for grid in first.grids if all(grid in unit.grids for unit in others)]


def stored_bytes(shape: tuple[int, int], grid: Grid, layout: Format) -> int:
    """Returns the bytes of one linear's codes, scales, zeros and group indexes."""
    rows, columns = shape
    groups = 1 if grid.group_size == -1 else columns // grid.group_size
    codes = rows * columns * grid.bits // 8
    scales, zeros = rows * groups * SCALE_BYTES, rows * groups * grid.bits // 8
    match layout:
        case Format.GPTQ:
            return codes + scales + zeros + columns * WORD_BYTES
        case Format.COMPRESSED_TENSORS:
            return codes + scales + SHAPE_BYTES + (0 if grid.sym else zeros)
        case _:
            assert_never(layout)


def _limit(budget: BudgetConfig, facts: ModelFacts, quantized: Sequence[str]) -> int:
    """Returns the bytes that the quantized linears may take together."""
    limits = []
    if budget.bits:
        weights = sum(rows * columns for rows, columns in (facts.linears[name] for name in quantized))
        limits.append(int(budget.bits * weights / 8))
    if budget.bytes:
        limits.append(budget.bytes - _other_bytes(facts, quantized))
    return min(limits)


def _other_bytes(facts: ModelFacts, quantized: Sequence[str]) -> int:
    """Returns what the weight files hold besides the quantized linears: tensors that stay in float, and the headers."""
    kept = facts.total_bytes - sum(facts.tensors[f"{name}.weight"].nbytes for name in quantized)
    lines = sum(len(name) + ENTRY_BYTES for name in facts.tensors)
    lines += sum(TENSORS_PER_LINEAR * (len(name) + ENTRY_BYTES) for name in quantized)
    return kept + lines + HEADER_BYTES


def _refuse_too_small(task: BudgetTask, budget: BudgetConfig, facts: ModelFacts, quantized: Sequence[str]) -> None:
    if task.smallest <= task.room:
        return
    least_bits = task.bits(task.smallest)
    by_bytes = budget.bytes and (not budget.bits or int(budget.bits * task.weights / 8) > task.limit_bytes)
    least = f"bytes from {task.smallest + task.fixed_bytes + _other_bytes(facts, quantized):,}"
    raise InvalidConfigError(
        "budget.bytes" if by_bytes else "budget.bits",
        budget.bytes if by_bytes else budget.bits,
        f"the smallest grids that are allowed here take {least_bits:.3f} bits per weight",
        f"{least}, or a lower lowest_bits" if by_bytes else f"bits from {least_bits:.3f}, or a lower lowest_bits",
    )


def _units(
    names: Sequence[str],
    config: QuantizationConfig,
    budget: BudgetConfig,
    facts: ModelFacts,
    readers: Mapping[Target, Format],
) -> Iterator[Unit]:
    """Yields the units in the order of the blocks; raises InvalidConfigError where one has no grid."""
    members: dict[tuple[int, str], dict[str, tuple[int, int]]] = {}
    for name in names:
        number, _, rest = name.removeprefix(facts.block_prefix).lstrip(".").partition(".")
        members.setdefault((int(number), _family(rest)), {})[name] = facts.linears[name]
    candidates = _candidates(config, budget)
    for (block, family), shapes in sorted(members.items(), key=lambda item: item[0][0]):
        grids = tuple(grid for grid in candidates if _fits(grid, shapes, readers))
        if not grids:
            raise InvalidConfigError(
                "budget.lowest_bits",
                budget.lowest_bits,
                f"no grid from there on suits {next(iter(shapes))} and the targets",
                "a lower width, or fewer targets",
            )
        yield Unit(block=block, family=family, shapes=shapes, grids=grids)


def _family(rest: str) -> str:
    """Returns what the linears of one unit share, from a name inside its block."""
    if EXPERTS in f".{rest}":
        return rest[: f".{rest}".index(EXPERTS) + len(EXPERTS) - 2]
    parent, _, last = rest.rpartition(".")
    for members in FUSED_LINEARS:
        if last in members:
            return f"{parent}.{FUSED_NAMES[members]}" if parent else FUSED_NAMES[members]
    return rest


def _candidates(config: QuantizationConfig, budget: BudgetConfig) -> list[Grid]:
    sizes = sorted({config.group_size, *GROUP_SIZES})
    widths = [bits for bits in BITS if bits >= budget.lowest_bits]
    return [Grid(bits=bits, group_size=size, sym=config.sym) for bits in widths for size in sizes]


def _fits(grid: Grid, shapes: Shapes, readers: Mapping[Target, Format]) -> bool:
    word = codes_per_word(grid.bits)
    packs = not any(size % word for shape in shapes.values() for size in shape)
    divides = grid.group_size == -1 or not any(columns % grid.group_size for _, columns in shapes.values())
    return packs and divides and all(loads(target, grid, shapes, layout) for target, layout in readers.items())


def _layouts(
    config: QuantizationConfig, targets: Sequence[Target], formats: Sequence[Format], shapes: Shapes
) -> dict[Target, Format]:
    """Returns the written format in which each target loads most widths; the first of equals."""

    def widths(target: Target, layout: Format) -> int:
        grids = (Grid(bits=bits, group_size=-1, sym=config.sym) for bits in BITS)
        return sum(loads(target, grid, shapes, layout) for grid in grids)

    return {target: max(formats, key=lambda layout: widths(target, layout)) for target in targets}
