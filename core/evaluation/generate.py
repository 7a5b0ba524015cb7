"""One sentence from a model, chosen greedily: a sign of life that anybody can read, not a measure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from transformers import GenerationConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FIRST_SENTENCE = re.compile(r"\s*(.+?[.!?])(?=\s|$)", re.DOTALL)


def generate_sentence(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    max_new_tokens: int = 48,
) -> str:
    """Returns the first sentence of the model's answer, or all of it where no sentence ends in time."""
    answer, _ = generate_text(model, tokenizer, prompt, max_new_tokens)
    sentence = FIRST_SENTENCE.match(answer)
    return sentence.group(1) if sentence else answer.strip()


def generate_text(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, max_new_tokens: int
) -> tuple[str, int]:
    """Returns the model's answer and how many tokens it is of.

    The prompt goes through the tokenizer's chat template where there is one. Greedy: one model, one text.
    """
    inputs = _inputs(tokenizer, prompt)
    stops = model.generation_config.eos_token_id if model.generation_config is not None else None
    settings = GenerationConfig(  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=tokenizer.eos_token_id if stops is None else stops,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
    )
    with torch.inference_mode():
        tokens = model.generate(  # type: ignore[operator]  # a mixin that nn.Module's typing hides
            inputs.to(model.device), attention_mask=torch.ones_like(inputs), generation_config=settings
        )
    answer = tokens[0, inputs.shape[1] :]
    return str(tokenizer.decode(answer, skip_special_tokens=True)), len(answer)


def _inputs(tokenizer: PreTrainedTokenizerBase, prompt: str) -> torch.Tensor:
    """Returns the prompt as token ids [1, T]."""
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    else:
        ids = tokenizer(prompt)["input_ids"]
    return torch.tensor([ids], dtype=torch.int64)
