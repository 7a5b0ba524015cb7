"""How long a run takes, from shapes and from what the machine does in a second; standard library only.

Work is counted kind by kind, as `core.profile` charges it, and divided by the rate of what it mostly consists of. What
no product or pass over memory accounts for is told by shares that were measured on runs of known shapes.

Legend: O outputs and I inputs of a linear, T tokens.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from core.configs import AdaRoundConfig, AWQConfig, GPTQConfig, Method, ScaleSearch
from core.preflight.architectures import NUMBERED_EXPERT
from core.preflight.memory import TOKENS_PER_BATCH, float_share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.configs import CalibrationConfig, QuantizationConfig
    from core.preflight.rates import MachineRates
    from core.preflight.source import ModelFacts

# Linears that write into the residual stream are fed by something of their own; all others of a module by one tensor.
_WRITES_STREAM: Final = re.compile(
    r"(?:^|\.)(?:o_proj|out_proj|dense|c_proj|wo|w2|down_proj|fc2|fc_out|proj_out|dense_4h_to_h)$"
)
_ROUTED_SHARE: Final = 1 / 8
"""Of the tokens that reach an expert, where only a model's config would tell."""

# Measured on runs: what kinds of work reach of a machine's rates, on all of its cores together.
_FORWARD_OF_RATE: Final = 0.7
_ATTENTION_OF_RATE: Final = 0.24
GRAM_OF_RATE: Final = 1.08
PRODUCTS_OF_RATE: Final = 0.9
_UPDATES_OF_RATE: Final = 0.45
_MEMORY_OF_RATE: Final = 0.1
"""Rates are measured in the cache, large tensors are not there."""
_CHECK_OF_HASH: Final = 1.25
# Passes over what enters and leaves a block's linears, and over the weights in float32.
_FORWARD_PASSES: Final = 8.5
_SOLVE_PASSES: Final = 10
_REFINE_PASSES: Final = 10
_TARGET_PASSES: Final = 5
_LOSS_PASSES: Final = 16
_FACTOR_PASSES: Final = 25.0
_OTHER_PASSES: Final = 30
_ROUNDING_PASSES: Final = 6
_LEARNING_PASSES: Final = 30
# In steps of the column solve: what a weight costs in a scale search.
_SEARCH_STEPS: Final = 480
_UPDATE_COLUMNS: Final = 128
_LEAF: Final = 192
"""Widths up to which the library factorizes, as `core.solver.factor` has it."""
_PARTS: Final = 4
_PART_COLUMNS: Final = 512
"""In how many parts triangles are multiplied, and how wide each is at least, as `core.matmul` has it."""
_CLIP_STEPS: Final = 21
# What waits for the interpreter and for small operations, in numbers that it adds meanwhile: the process until a run
# begins, a block, a batch in front of an input set, an update of columns, a refined group, a leaf of a factorization.
_START_NUMBERS: Final = 1.95e8
_BLOCK_NUMBERS: Final = 1.9e6
_BATCH_NUMBERS: Final = 5.6e4
_UPDATE_NUMBERS: Final = 1e4
_GROUP_NUMBERS: Final = 1.5e4
_LEAF_NUMBERS: Final = 6.6e4


@dataclass(frozen=True, slots=True)
class InputSet:
    """Linears of one block that share their inputs. outputs: O of each. tokens: that reach it."""

    inputs: int
    outputs: tuple[int, ...]
    tokens: float
    writes_stream: bool

    @property
    def elements(self) -> float:
        """Returns the number of weights."""
        return float(self.inputs * sum(self.outputs))


def input_sets(facts: ModelFacts, tokens: int, *, feeds_all: bool) -> list[InputSet]:
    """Returns the input sets of all blocks, as far as names tell."""
    found: dict[tuple[str, int, str], list[int]] = defaultdict(list)
    for name, (rows, columns) in facts.calibrated.items():
        parent, _, own = name.rpartition(".")
        found[parent, columns, own if _WRITES_STREAM.search(name) else ""].append(rows)
    return [
        InputSet(
            inputs=columns,
            outputs=tuple(rows),
            tokens=tokens * (_ROUTED_SHARE if NUMBERED_EXPERT.search(f"{parent}.") and not feeds_all else 1.0),
            writes_stream=bool(own),
        )
        for (parent, columns, own), rows in found.items()
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is counted. share: of the batches beside which the float model runs. files: that hold weights."""

    facts: ModelFacts
    config: QuantizationConfig
    rates: MachineRates
    tokens: int
    seq_len: int
    share: float
    sets: Sequence[InputSet]
    formats: int

    @property
    def in_bfloat16(self) -> bool:
        return self.facts.dtype == "bfloat16" and self.rates.bfloat16_products > self.rates.float32_products


def seconds_by_work(
    facts: ModelFacts,
    config: QuantizationConfig,
    calibration: CalibrationConfig | None,
    rates: MachineRates,
    formats: int = 1,
) -> dict[str, float]:
    """Returns the seconds that a run in a process of its own takes, by kind of work; `start` is that of the process.

    formats: how many layouts are written.
    """
    facts = facts.planned(config)
    if config.method == Method.RTN:
        calibration = None
    tokens = 0 if calibration is None else calibration.tokens
    plan = _Plan(
        facts=facts,
        config=config,
        rates=rates,
        tokens=tokens,
        seq_len=1 if calibration is None else calibration.seq_len,
        share=float_share(config) if tokens else 0.0,
        sets=input_sets(facts, tokens, feeds_all=getattr(config, "feed_all_experts", False)),
        formats=formats,
    )
    return {
        "start": _START_NUMBERS / rates.numbers,
        "check": facts.total_bytes / rates.hashed_bytes * _CHECK_OF_HASH / min(len(_files(facts)), rates.cores),
        "forward": _forward(plan),
        "hessian": sum(_hessian(plan, each) for each in plan.sets),
        **_solver(plan),
        "write": _write(plan),
        "other": _BLOCK_NUMBERS * facts.blocks / rates.numbers
        + _passes(_OTHER_PASSES * sum(each.elements for each in plan.sets), rates) / rates.cores,
    }


def _files(facts: ModelFacts) -> set[str]:
    return {tensor.file for tensor in facts.tensors.values()}


def _forward(plan: _Plan) -> float:
    """Returns the seconds of products, attention and what is done element by element, on both paths."""
    rates, facts, paths = plan.rates, plan.facts, 1 + plan.share
    if not plan.tokens:
        return 0.0
    rate = rates.cores * (rates.bfloat16_products if plan.in_bfloat16 else rates.float32_products)
    products = 2.0 * sum(each.tokens * each.elements for each in plan.sets)
    attended = 2.0 * facts.blocks * plan.tokens * plan.seq_len * facts.hidden_size
    passed = sum(each.tokens * (each.inputs + sum(each.outputs)) for each in plan.sets) * (2 if plan.in_bfloat16 else 4)
    return paths * (
        products / (rate * _FORWARD_OF_RATE)
        + attended / (rate * _ATTENTION_OF_RATE)
        + _FORWARD_PASSES * passed / (rates.cores * rates.memory_bytes * _MEMORY_OF_RATE)
    )


def _hessian(plan: _Plan, each: InputSet) -> float:
    square = float(each.inputs) ** 2
    operations = each.tokens * square * (1 + 2 * plan.share)
    if plan.share and each.writes_stream and getattr(plan.config, "stream_beta", 0.0):
        operations += 2 * plan.share * each.tokens * each.elements
    rate = plan.rates.grams if plan.in_bfloat16 else plan.rates.float32_products
    batches = (1 + plan.share) * each.tokens / TOKENS_PER_BATCH
    return operations / (plan.rates.cores * rate * GRAM_OF_RATE) + batches * _BATCH_NUMBERS / plan.rates.numbers


def _passes(numbers: float, rates: MachineRates) -> float:
    """Returns the seconds in which one core reads and writes so many float32 numbers."""
    return 8 * numbers / (rates.memory_bytes * _MEMORY_OF_RATE)


def _solver(plan: _Plan) -> dict[str, float]:
    config = plan.config
    if isinstance(config, GPTQConfig):
        counted = [_gptq(config, each, share=plan.share) for each in plan.sets]
    elif isinstance(config, AWQConfig):
        counted = [_awq(config, each) for each in plan.sets]
    elif isinstance(config, AdaRoundConfig):
        counted = [_adaround(config, each) for each in plan.sets]
    else:
        counted = [{"solve": _Count(passes=_ROUNDING_PASSES * each.elements)} for each in plan.sets]
    seconds: dict[str, float] = defaultdict(float)
    for counts in counted:
        for work, count in counts.items():
            seconds[work] += count.seconds(plan.rates)
    return dict(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Count:
    """products: operations in float32. short_products: in bfloat16 where the machine has it.

    steps: of the column solve. passes: float32 numbers read and written. numbers: what the interpreter could add.
    """

    products: float = 0.0
    short_products: float = 0.0
    steps: float = 0.0
    passes: float = 0.0
    numbers: float = 0.0

    def seconds(self, rates: MachineRates) -> float:
        """Returns the seconds of all of them, one after the other."""
        parallel = (
            self.products / (rates.float32_products * PRODUCTS_OF_RATE)
            + self.short_products / max(rates.bfloat16_products, rates.float32_products * PRODUCTS_OF_RATE)
            + self.steps / rates.solved_steps
            + _passes(self.passes, rates)
        )
        return parallel / rates.cores + self.numbers / rates.numbers


def _gptq(config: GPTQConfig, each: InputSet, *, share: float) -> dict[str, _Count]:
    width, weights, linears = each.inputs, each.elements, len(each.outputs)
    group = width if config.group_size == -1 else config.group_size
    orders = len(config.order.tried)
    rounds = orders * config.refine_rounds
    # Without tokens to judge by, what was refined is kept as it is.
    attempts = orders * (2 if config.refine_rounds and config.holds_out else 1)
    judged = 1 + (attempts if attempts > 1 else 0)
    searched = orders * weights if config.scale_search is not ScaleSearch.MINMAX else 0.0
    return {
        "factorization": _factor(width, orders),
        **({"target": _target(each)} if share else {}),
        "search": _Count(steps=_SEARCH_STEPS * searched),
        "solve": _Count(
            products=orders * weights * width * PRODUCTS_OF_RATE / _UPDATES_OF_RATE,
            steps=orders * weights * _UPDATE_COLUMNS,
            passes=orders * weights * _SOLVE_PASSES,
            numbers=orders * linears * _UPDATE_NUMBERS * width / min(_UPDATE_COLUMNS, group),
        ),
        "refine": _Count(
            products=rounds * weights * 2 * (width + 2 * group),
            steps=rounds * weights * group,
            passes=rounds * weights * _REFINE_PASSES,
            numbers=rounds * linears * _GROUP_NUMBERS * width / group,
        ),
        "loss": _losses(each, judged),
    }


def _triangle(width: int) -> float:
    """Returns the share of a square that a triangle multiplied in parts takes."""
    parts = math.ceil(width / max(_PART_COLUMNS, width / _PARTS))
    return (parts + 1) / (2 * parts)


def _losses(each: InputSet, judged: int) -> _Count:
    """Returns what it takes to judge each linear so many times, and to tell its outputs' energy."""
    products = 2.0 * each.elements * each.inputs
    return _Count(
        products=judged * products * _triangle(each.inputs),
        short_products=products,
        passes=(judged + 1) * _LOSS_PASSES * each.elements,
    )


def _factor(width: int, times: int = 1) -> _Count:
    """Returns what it takes to factorize and invert: by halves, down to leaves."""
    levels = max(0, math.ceil(math.log2(width / _LEAF)))
    # At each level every part is cut into halves, of which four triangles are multiplied.
    products = sum(float(width) ** 3 / 4**level * _triangle(width >> (level + 1)) for level in range(levels))
    return _Count(
        products=times * products,
        passes=times * _FACTOR_PASSES * width**2,
        numbers=times * _LEAF_NUMBERS * (1 << levels),
    )


def _target(each: InputSet) -> _Count:
    """Returns what targets take: of linears with more outputs than inputs by way of one map for all."""
    width = each.inputs
    square, factor = float(width) ** 2, _factor(width)
    # Through the inverse: both of its triangles.
    through = 2 * _triangle(width)
    products = sum(2.0 * rows * square * (1 if rows > width else 1 + through) for rows in each.outputs)
    if max(each.outputs) > width:
        products += 2 * through * width * square
    return _Count(
        products=factor.products + products,
        passes=factor.passes + _TARGET_PASSES * each.elements,
        numbers=factor.numbers,
    )


def _awq(config: AWQConfig, each: InputSet) -> dict[str, _Count]:
    steps = config.channel_steps + 1 if config.channel_steps else 0
    clips = _CLIP_STEPS if config.clip_search else 0
    group = each.inputs if config.group_size == -1 else config.group_size
    products = 2.0 * each.elements * (steps * each.inputs + clips * group)
    return {
        "solve": _Count(products=products, passes=each.elements * _ROUNDING_PASSES * (steps + clips + 1)),
        "loss": _losses(each, 3),
    }


def _adaround(config: AdaRoundConfig, each: InputSet) -> dict[str, _Count]:
    return {
        "solve": _Count(
            products=2.0 * config.iterations * each.elements * each.inputs,
            passes=config.iterations * each.elements * _LEARNING_PASSES,
        ),
        "loss": _losses(each, 4),
    }


def _write(plan: _Plan) -> float:
    """Returns the seconds of hashing and writing the artifact; what blocks hold is packed and kept beside the run."""
    replaced = sum(each.elements for each in plan.sets) * (4 if plan.facts.dtype == "float32" else 2)
    packed = sum(each.elements for each in plan.sets) * plan.config.bits / 8
    return plan.formats * (max(plan.facts.total_bytes - replaced, 0) + packed) / plan.rates.hashed_bytes
