"""How much the solver does with one input set, kind by kind; standard library only.

What no product or pass over memory accounts for is told by shares that were measured on runs of known shapes.

Legend: O outputs and I inputs of a linear.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from core.blocking import LEAF_COLUMNS, STRETCH_COLUMNS, UPDATE_COLUMNS
from core.configs import AdaRoundConfig, AWQConfig, GPTQConfig, ScaleSearch

if TYPE_CHECKING:
    from core.configs import QuantizationConfig
    from core.preflight.rates import MachineRates

# Measured on runs: what kinds of work reach of a machine's rates, on all of its cores together.
PRODUCTS_OF_RATE: Final = 0.9
MEMORY_OF_RATE: Final = 0.1
"""Rates are measured in the cache, large tensors are not there."""
# Passes over weights, over a matrix that is factorized.
_SOLVE_PASSES: Final = 20
_REFINE_PASSES: Final = 20
_TARGET_PASSES: Final = 5
_LOSS_PASSES: Final = 8
_FACTOR_PASSES: Final = 22.0
_ROUNDING_PASSES: Final = 6
_LEARNING_PASSES: Final = 30
# In steps of the column solve: what a weight costs in a scale search.
_SEARCH_STEPS: Final = 380
_CLIP_STEPS: Final = 21
# What waits for the interpreter and for small operations, in numbers that it adds meanwhile: an update of columns, a
# refined group, a leaf of a factorization.
_UPDATE_NUMBERS: Final = 5e3
_GROUP_NUMBERS: Final = 1.1e4
_LEAF_NUMBERS: Final = 3e4


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """products: operations in float32. rounded: those whose sides are rounded to bfloat16.

    steps: of the column solve. passes: float32 numbers read and written. numbers: what the interpreter could add.
    """

    products: float = 0.0
    rounded: float = 0.0
    steps: float = 0.0
    passes: float = 0.0
    numbers: float = 0.0

    def seconds(self, rates: MachineRates) -> float:
        """Returns the seconds of all of them, one after the other."""
        parallel = (
            self.products / (rates.float32_products * PRODUCTS_OF_RATE)
            + self.rounded / (rates.grams * PRODUCTS_OF_RATE)
            + self.steps / rates.solved_steps
            + memory_seconds(self.passes, rates)
        )
        return parallel / rates.cores + self.numbers / rates.numbers


def memory_seconds(numbers: float, rates: MachineRates) -> float:
    """Returns the seconds in which one core reads and writes so many float32 numbers."""
    return 8 * numbers / (rates.memory_bytes * MEMORY_OF_RATE)


def solver_counts(config: QuantizationConfig, each: InputSet, *, share: float) -> dict[str, Count]:
    """Returns what a method does with an input set, by kind of work. share: of the batches with a float path."""
    if isinstance(config, GPTQConfig):
        return _gptq(config, each, share=share)
    if isinstance(config, AWQConfig):
        return _awq(config, each)
    if isinstance(config, AdaRoundConfig):
        return _adaround(config, each)
    return {"solve": Count(passes=_ROUNDING_PASSES * each.elements)}


def _gptq(config: GPTQConfig, each: InputSet, *, share: float) -> dict[str, Count]:
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
        "search": Count(steps=_SEARCH_STEPS * searched),
        "solve": Count(
            products=orders * weights * (width + (STRETCH_COLUMNS if width > STRETCH_COLUMNS else 0)),
            steps=orders * weights * UPDATE_COLUMNS,
            passes=orders * weights * _SOLVE_PASSES,
            numbers=orders * linears * _UPDATE_NUMBERS * width / min(UPDATE_COLUMNS, group),
        ),
        "refine": Count(
            products=rounds * weights * 4 * group,
            rounded=(rounds + orders) * weights * width if rounds else 0.0,
            steps=rounds * weights * group,
            passes=rounds * weights * _REFINE_PASSES,
            numbers=rounds * linears * _GROUP_NUMBERS * width / group,
        ),
        "loss": _losses(each, judged),
    }


def _losses(each: InputSet, judged: int) -> Count:
    """Returns what it takes to judge each linear so many times, and to tell its outputs' energy: a triangle each."""
    return Count(rounded=(judged + 1) * each.elements * each.inputs, passes=(judged + 1) * _LOSS_PASSES * each.elements)


def _factor(width: int, times: int = 1) -> Count:
    """Returns what it takes to factorize: by halves, of which two triangles are multiplied, to leaves."""
    levels = max(0, math.ceil(math.log2(width / LEAF_COLUMNS)))
    products = sum(float(width) ** 3 / 4 / 4**level for level in range(levels))
    return Count(
        products=times * products,
        passes=times * _FACTOR_PASSES * width**2,
        numbers=times * _LEAF_NUMBERS * (1 << levels),
    )


def _target(each: InputSet) -> Count:
    """Returns what targets take: of linears with more outputs than inputs by way of one map for all."""
    width = each.inputs
    square, factor = float(width) ** 2, _factor(width)
    # Divided by the factor's two triangles.
    products = sum(2.0 * rows * square * (1 if rows > width else 2) for rows in each.outputs)
    if max(each.outputs) > width:
        products += 2.0 * width * square
    return Count(
        products=factor.products,
        rounded=products,
        passes=factor.passes + _TARGET_PASSES * each.elements,
        numbers=factor.numbers,
    )


def _awq(config: AWQConfig, each: InputSet) -> dict[str, Count]:
    steps = config.channel_steps + 1 if config.channel_steps else 0
    clips = _CLIP_STEPS if config.clip_search else 0
    group = each.inputs if config.group_size == -1 else config.group_size
    products = 2.0 * each.elements * (steps * each.inputs + clips * group)
    return {
        "solve": Count(products=products, passes=each.elements * _ROUNDING_PASSES * (steps + clips + 1)),
        "loss": _losses(each, 3),
    }


def _adaround(config: AdaRoundConfig, each: InputSet) -> dict[str, Count]:
    return {
        "solve": Count(
            products=2.0 * config.iterations * each.elements * each.inputs,
            passes=config.iterations * each.elements * _LEARNING_PASSES,
        ),
        "loss": _losses(each, 4),
    }
