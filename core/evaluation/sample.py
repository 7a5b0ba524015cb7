"""Lets the float and the quantized model answer one prompt, and looks whether the quantized one still speaks.

Greedy decoding; a text counts as degenerate by what anybody would see at a glance: it is empty, mostly unreadable, or
says the same few words over and over. A model whose float answer is degenerate too (a random one) is not judged.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from core.checkpoint.reader import CheckpointReader
from core.errors import ArtifactDegenerateError
from core.evaluation.generate import generate_text
from core.evaluation.loading import load_tokenizer, open_weights

PROMPT: Final = "Explain in a few sentences why the sky is blue."
MAX_NEW_TOKENS: Final = 64
WORD: Final = re.compile(r"\w+")
FEWEST_WORDS: Final = 12
"""Shorter answers are not looked through for repetition."""
LEAST_DISTINCT: Final = 0.35
"""Of all runs of three words, the share that must differ; plain prose is above 0.9."""
MOST_UNREADABLE: Final = 0.3
REPLACEMENT: Final = "\ufffd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """text: what was generated. tokens_per_second: of the whole answer, its prompt included."""

    text: str
    tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Returns the rate of decoding."""
        return self.tokens / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Both models' answers to one prompt."""

    prompt: str
    before: Answer
    after: Answer


def sample_both(float_dir: Path, quantized_dir: Path, dtype: torch.dtype) -> Samples:
    """Returns the answers of two folders with one tokenizer; each model is in memory as a whole, one after the other.

    dtype: of the weights and of the computation; linears are expanded to it. Raises as `load_model`.
    """
    answers = [_answer(folder, float_dir, dtype) for folder in (float_dir, quantized_dir)]
    return Samples(prompt=PROMPT, before=answers[0], after=answers[1])


def refuse_degenerate(samples: Samples) -> None:
    """Raises ArtifactDegenerateError, with both answers, where only the quantized one is degenerate."""
    fault = degenerate(samples.after.text)
    if fault is not None and degenerate(samples.before.text) is None:
        raise ArtifactDegenerateError(fault, samples.prompt, samples.before.text, samples.after.text)


def degenerate(text: str) -> str | None:
    """Returns what is wrong with a text at a glance, None where nothing is."""
    if not text.strip():
        return "it is empty"
    unreadable = sum(character == REPLACEMENT or not character.isprintable() for character in text if character != "\n")
    if unreadable / len(text) > MOST_UNREADABLE:
        return "most of it cannot be read"
    words = WORD.findall(text.lower())
    runs = list(zip(words, words[1:], words[2:], strict=False))
    if len(words) >= FEWEST_WORDS and len(set(runs)) / len(runs) < LEAST_DISTINCT:
        return "it says the same over and over"
    return None


def _answer(folder: Path, tokenizer_dir: Path, dtype: torch.dtype) -> Answer:
    with CheckpointReader(folder) as reader:
        skeleton, source = open_weights(folder, reader, dtype)
        skeleton.load(source, skeleton.names.source_of)
    tokenizer = load_tokenizer(tokenizer_dir)
    started = time.perf_counter()
    text, tokens = generate_text(skeleton.model, tokenizer, PROMPT, MAX_NEW_TOKENS)
    return Answer(text=text, tokens=tokens, seconds=time.perf_counter() - started)
