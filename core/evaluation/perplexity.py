"""Perplexity of a model on token windows: exp of the mean negative log-likelihood of each next token.

Windows are judged on their own: a window's first token is given, never judged. Legend: N windows, T tokens in one,
V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from core.events import Event, Stage, StageAdvanced
from core.matmul import linears_at_full_rate

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel

LOGIT_ROWS = 128  # rows turned into float32 at a time: vocabularies are wide, and one window's logits are enough


def perplexity(
    model: PreTrainedModel,
    tokens_NT: torch.Tensor,
    on_event: Callable[[Event], None] | None = None,
) -> float:
    """Returns the perplexity on int64 windows [N, T], T >= 2; emits StageAdvanced after each window.

    Log-likelihoods are float32 whatever the model's dtype, and are summed in double precision. A model whose logits are
    not finite has a perplexity that is not finite.
    """
    windows, width = tokens_NT.shape
    if windows < 1 or width < 2:  # noqa: PLR2004 - one token to be given, one to be judged
        raise ValueError(f"perplexity needs windows of at least 2 tokens, not {windows} x {width}.")
    total = 0.0
    with torch.inference_mode(), linears_at_full_rate():
        for done, tokens_T in enumerate(tokens_NT, start=1):
            total += _negative_log_likelihood(model, tokens_T.to(model.device))
            if on_event is not None:
                on_event(StageAdvanced(stage=Stage.EVALUATING, done=done, total=windows))
    # torch's exp overflows to infinity, where math.exp raises.
    return float(torch.tensor(total / (windows * (width - 1)), dtype=torch.float64).exp())


def _negative_log_likelihood(model: PreTrainedModel, tokens_T: torch.Tensor) -> float:
    """Returns the sum over the T-1 judged tokens of one window."""
    logits_TV = model(input_ids=tokens_T[None], use_cache=False).logits[0, :-1]
    total = 0.0
    for logits_RV, next_R in zip(
        torch.split(logits_TV, LOGIT_ROWS), torch.split(tokens_T[1:], LOGIT_ROWS), strict=True
    ):
        total += float(torch.nn.functional.cross_entropy(logits_RV.float(), next_R, reduction="sum"))
    return total
