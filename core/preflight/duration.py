"""How long a run takes, from shapes and from what the machine does in a second; standard library only.

Work is counted kind by kind, as `core.profile` charges it, and divided by the rate of what it mostly consists of. What
no product or pass over memory accounts for is told by shares that were measured on runs of known shapes.

Legend: O outputs and I inputs of a linear, T tokens.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from core.preflight.architectures import NUMBERED_EXPERT
from core.preflight.memory import TOKENS_PER_BATCH, float_share
from core.preflight.solver_work import MEMORY_OF_RATE, InputSet, memory_seconds, solver_counts

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
_FORWARD_OF_RATE: Final = 0.8
_ATTENTION_OF_RATE: Final = 0.5
GRAM_OF_RATE: Final = 1.08
_CHECK_OF_HASH: Final = 1.25
# Passes over what enters and leaves a block's linears, and over the weights in float32.
_FORWARD_PASSES: Final = 6
_OTHER_PASSES: Final = 30
# What waits for the interpreter and for small operations, in numbers that it adds meanwhile: the process until a run
# begins, a block, a batch in front of an input set.
_START_NUMBERS: Final = 1.95e8
_BLOCK_NUMBERS: Final = 1e6
_BATCH_NUMBERS: Final = 3.5e4


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


def expected_seconds(
    facts: ModelFacts,
    config: QuantizationConfig,
    calibration: CalibrationConfig | None,
    rates: MachineRates,
    formats: int = 1,
) -> float:
    """Returns how long that run takes: the sum of `seconds_by_work`."""
    return sum(seconds_by_work(facts, config, calibration, rates, formats).values())


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
    if not config.needs_calibration:
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
        + memory_seconds(_OTHER_PASSES * sum(each.elements for each in plan.sets), rates) / rates.cores,
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
        + _FORWARD_PASSES * passed / (rates.cores * rates.memory_bytes * MEMORY_OF_RATE)
    )


def _hessian(plan: _Plan, each: InputSet) -> float:
    square = float(each.inputs) ** 2
    operations = each.tokens * square * (1 + 2 * plan.share)
    if plan.share and each.writes_stream and getattr(plan.config, "stream_beta", 0.0):
        operations += 2 * plan.share * each.tokens * each.elements
    rate = plan.rates.grams if plan.in_bfloat16 else plan.rates.float32_products
    batches = (1 + plan.share) * each.tokens / TOKENS_PER_BATCH
    return operations / (plan.rates.cores * rate * GRAM_OF_RATE) + batches * _BATCH_NUMBERS / plan.rates.numbers


def _solver(plan: _Plan) -> dict[str, float]:
    seconds: dict[str, float] = defaultdict(float)
    for each in plan.sets:
        for work, count in solver_counts(plan.config, each, share=plan.share).items():
            seconds[work] += count.seconds(plan.rates)
    return dict(seconds)


def _write(plan: _Plan) -> float:
    """Returns the seconds of hashing and writing the artifact; what blocks hold is packed and kept beside the run."""
    replaced = sum(each.elements for each in plan.sets) * (4 if plan.facts.dtype == "float32" else 2)
    packed = sum(each.elements for each in plan.sets) * plan.config.bits / 8
    return plan.formats * (max(plan.facts.total_bytes - replaced, 0) + packed) / plan.rates.hashed_bytes
