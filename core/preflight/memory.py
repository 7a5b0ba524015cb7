"""How much memory a run takes, from shapes: the process, blocks, the solver's matrices, what calibration batches hold.

The shares follow the engine's design and were measured on runs of known shapes. Standard library only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from core.configs import CalibrationConfig, QuantizationConfig
    from core.preflight.source import ModelFacts

PROCESS_BYTES: Final = 540 * 10**6
"""Interpreter, torch, transformers and compiled kernels."""
SLACK: Final = 1.1
"""What the C library keeps of freed memory."""
TOKENS_PER_BATCH: Final = 2048
"""A constant, not an option: the bytes of an artifact must not hang on how much memory a machine has."""
FLOAT32_BYTES: Final = 4
SHORT_BYTES: Final = 2
# In matrices of I x I, the Hessian among them, and of O x I. While a Hessian is factorized, without and with a float
# path beside it (whose own Hessian and difference are there too):
_FACTORIZING = {False: (2.1, 0.0), True: (3.0, 1.0)}
# While targets are made:
_TARGETING = {False: (0.0, 0.0), True: (3.0, 3.5)}
# While a linear is solved: its weights, target, live weights and codes; then, without the factor, while it is refined
# and judged: what is compared as well. A linear with no more inputs than outputs mostly shares them with others, for
# which all that was prepared stays.
_SOLVING = {False: (2.0, 3.0), True: (2.0, 4.0)}
_JUDGING = (1.0, 6.0)
_SOLVING_SHARED = {False: (2.0, 6.0), True: (5.0, 6.0)}
# The block under way, the next one that is read, and the last one's codes and words that are written.
_BLOCKS_IN_MODEL_DTYPE = 2.0
_BYTES_OF_WRITTEN_WEIGHT = 1.5
# Of one batch under way: gate, up and their product.
_WIDE_TENSORS = 3
# What a suspended token holds, in hidden states: in front of the attention's output what entered, queries, keys, values
# and what was attended to, and one set ahead on the float path the stream and its norm; in front of the feed-forward's
# last linear the stream and that one's inputs, and on the float path what has left. What is read no more is let go.
_ATTENDING = 5
_ATTENDING_BESIDE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """fixed_bytes: whatever the calibration. activation_bytes: what all batches hold; a limit on it is kept to."""

    fixed_bytes: int
    activation_bytes: int

    def within(self, activation_memory: int | None) -> int:
        """Returns the bytes that a run takes under a limit on what batches hold; None for no limit."""
        held = self.activation_bytes
        return self.fixed_bytes + (held if activation_memory is None else min(held, activation_memory))


def memory_need(facts: ModelFacts, config: QuantizationConfig, calibration: CalibrationConfig | None) -> MemoryNeed:
    """Returns what one run on a model takes at its peak."""
    tokens = 0 if calibration is None else calibration.tokens
    linears = {name: shape for name, shape in facts.linears.items() if name.startswith(facts.block_prefix)}
    widest = max((columns for _, columns in linears.values()), default=0)
    share = float_share(config) if tokens else 0.0
    itemsize = activation_itemsize(facts)
    attending = facts.hidden_size * (_ATTENDING + _ATTENDING_BESIDE * share)
    held = tokens * itemsize * max(attending, facts.hidden_size * (1 + share) + widest)
    solver = max((_solver_bytes(shape, tokens, share) for shape in linears.values()), default=0.0)
    largest = _largest_block(linears, facts.block_prefix)
    blocks = largest * (_BLOCKS_IN_MODEL_DTYPE * itemsize + _BYTES_OF_WRITTEN_WEIGHT)
    tallest = max((rows for rows, _ in linears.values()), default=0)
    batch = min(tokens, TOKENS_PER_BATCH) * _WIDE_TENSORS * tallest * itemsize
    walking = blocks + max(solver, batch)
    ends = _outside_elements(facts) * itemsize
    return MemoryNeed(fixed_bytes=int(SLACK * (PROCESS_BYTES + max(walking, ends))), activation_bytes=int(SLACK * held))


def activation_itemsize(facts: ModelFacts) -> int:
    """Returns the bytes of a number in what blocks hand on."""
    return SHORT_BYTES if facts.dtype == "bfloat16" else FLOAT32_BYTES


def _solver_bytes(shape: tuple[int, int], tokens: int, share: float) -> float:
    rows, columns = shape
    beside, square = share > 0, float(columns * columns) if tokens else 0.0
    solving = [_SOLVING_SHARED[beside]] if rows >= columns else [_SOLVING[beside], _JUDGING]
    steps: list[tuple[float, float]] = [_FACTORIZING[beside], _TARGETING[beside], *solving]
    return FLOAT32_BYTES * max(squares * square + weights * rows * columns for squares, weights in steps)


def float_share(config: QuantizationConfig) -> float:
    """Returns beside which share of the batches the float model runs."""
    if not getattr(config, "mismatch_alpha", 0.0):
        return 0.0
    every: int = getattr(config, "mismatch_every", 1)
    return 1 / every


def _largest_block(linears: Mapping[str, tuple[int, int]], prefix: str) -> int:
    by_block: Counter[str] = Counter()
    for name, (rows, columns) in linears.items():
        by_block[name.removeprefix(prefix).partition(".")[0]] += rows * columns
    return max(by_block.values(), default=0)


def _outside_elements(facts: ModelFacts) -> int:
    """Embedding, head and norms, which are read once to make the first block's inputs."""
    return sum(tensor.elements for name, tensor in facts.tensors.items() if not name.startswith(facts.block_prefix))
