"""How near a quantized model's next-token distributions are to the float model's, on the same text.

Both are run layer by layer, so that a comparison needs the memory of one block and of two heads. Windows are judged
on their own: a window's first token is given, never judged. Legend: N windows, T tokens in one, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from core.evaluation.layerwise import LayerwiseModel
from core.evaluation.nf4 import NF4

LOGIT_ROWS = 128  # rows turned into probabilities at a time: vocabularies are wide
LEAST_TOKENS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """tokens: those that were judged. kl_divergence: mean over them of KL(float || quantized), in nats.

    top1_agreement: share of tokens for which both models think the same next token the likeliest.
    """

    tokens: int
    perplexity_float: float
    perplexity_quantized: float
    kl_divergence: float
    top1_agreement: float

    @property
    def perplexity_ratio(self) -> float:
        """Returns quantized over float."""
        return self.perplexity_quantized / self.perplexity_float


def compare_models(
    float_dir: Path,
    others: Sequence[Path | NF4],
    tokens_NT: torch.Tensor,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Fidelity]:
    """Compares each of some models with a float one on int64 windows [N, T], T >= 2.

    `advance` is told of each step, done and total, and may raise to stop. Log-likelihoods are float32 and summed in
    double precision; logits that are not finite give figures that are not. Raises as `load_model`.
    """
    windows, width = tokens_NT.shape
    if windows < 1 or width < LEAST_TOKENS:
        raise ValueError(f"a comparison needs windows of at least 2 tokens, not {windows} x {width}.")
    with LayerwiseModel.open(float_dir) as before:
        steps = _Steps(before.blocks + len(others) * (before.blocks + windows), advance)
        leaving = before.pass_blocks(tokens_NT, steps.next)
        before.load_ends()
        return [_compare(before, leaving, other, tokens_NT, steps) for other in others]


def _compare(
    before: LayerwiseModel, leaving: Sequence[torch.Tensor], other: Path | NF4, tokens_NT: torch.Tensor, steps: _Steps
) -> Fidelity:
    with LayerwiseModel.open(other) as after:
        left_after = after.pass_blocks(tokens_NT, steps.next)
        after.load_ends()
        sums = _Sums()
        for tokens_T, left, left_other in zip(tokens_NT, leaving, left_after, strict=True):
            sums.add(tokens_T, before.logits(tokens_T, left), after.logits(tokens_T, left_other))
            steps.next()
    return sums.fidelity()


class _Steps:
    def __init__(self, total: int, advance: Callable[[int, int], None]) -> None:
        self._total = total
        self._done = 0
        self._advance = advance

    def next(self) -> None:
        self._done += 1
        self._advance(self._done, self._total)


@dataclass(slots=True)
class _Sums:
    """Over all judged tokens, in double precision."""

    tokens: int = 0
    surprise_float: float = 0.0
    surprise_quantized: float = 0.0
    divergence: float = 0.0
    agreeing: int = 0

    def add(self, tokens_T: torch.Tensor, float_TV: torch.Tensor, quantized_TV: torch.Tensor) -> None:
        """Adds one window, some rows at a time."""
        parts = (torch.split(part, LOGIT_ROWS) for part in (float_TV[:-1], quantized_TV[:-1], tokens_T[1:]))
        for float_RV, quantized_RV, next_R in zip(*parts, strict=True):
            p_RV, q_RV = float_RV.log_softmax(dim=-1), quantized_RV.log_softmax(dim=-1)
            self.tokens += len(next_R)
            self.surprise_float -= float(p_RV.gather(1, next_R[:, None]).double().sum())
            self.surprise_quantized -= float(q_RV.gather(1, next_R[:, None]).double().sum())
            self.divergence += float(torch.nn.functional.kl_div(q_RV, p_RV, reduction="sum", log_target=True))
            self.agreeing += int((p_RV.argmax(dim=-1) == q_RV.argmax(dim=-1)).sum())

    def fidelity(self) -> Fidelity:
        """Returns the means."""
        return Fidelity(
            tokens=self.tokens,
            perplexity_float=_exp(self.surprise_float / self.tokens),
            perplexity_quantized=_exp(self.surprise_quantized / self.tokens),
            kl_divergence=self.divergence / self.tokens,
            top1_agreement=self.agreeing / self.tokens,
        )


def _exp(value: float) -> float:
    # torch's exp overflows to infinity, where math.exp raises.
    return float(torch.tensor(value, dtype=torch.float64).exp()) if not math.isnan(value) else value
