"""Lets the float and the quantized model answer one prompt, and looks whether the quantized one still speaks.

Greedy decoding; a text counts as degenerate by what anybody would see at a glance: it is empty, mostly unreadable, or
says the same few words over and over. A model whose float answer is degenerate too (a random one) is not judged.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from core.checkpoint.reader import CheckpointReader
from core.errors import ArtifactDegenerateError
from core.evaluation.generate import generate_text
from core.evaluation.loading import DequantizedSource, WeightSource, load_tokenizer, open_weights
from core.evaluation.packed import KERNEL, pack_linears, resident_bytes
from core.model.skeleton import Skeleton

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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
class Packed:
    """How the quantized model decodes on packed weights. kernel: what multiplied. resident_bytes: of its tensors."""

    kernel: str
    tokens_per_second: float
    resident_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Both models' answers to one prompt. packed: None where no kernel here takes every linear."""

    prompt: str
    before: Answer
    after: Answer
    packed: Packed | None


def sample_both(float_dir: Path, quantized_dir: Path, dtype: torch.dtype) -> Samples:
    """Returns the answers of two folders with one tokenizer; each model is in memory as a whole, one after the other.

    dtype: of the weights and of the computation; linears are expanded to it. Raises as `load_model`.
    """
    tokenizer = load_tokenizer(float_dir)
    with _loaded(float_dir, dtype) as (skeleton, _):
        before = _answer(skeleton, tokenizer)
    with _loaded(quantized_dir, dtype) as (skeleton, source):
        after = _answer(skeleton, tokenizer)
        packed = _packed(skeleton, source, tokenizer)
    return Samples(prompt=PROMPT, before=before, after=after, packed=packed)


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


@contextmanager
def _loaded(folder: Path, dtype: torch.dtype) -> Iterator[tuple[Skeleton, WeightSource]]:
    with CheckpointReader(folder) as reader:
        skeleton, source = open_weights(folder, reader, dtype)
        skeleton.load(source, skeleton.names.source_of)
        yield skeleton, source


def _packed(skeleton: Skeleton, source: WeightSource, tokenizer: PreTrainedTokenizerBase) -> Packed | None:
    """Measures the loaded model once more with its linears packed; it is of no other use afterwards."""
    if not isinstance(source, DequantizedSource) or not pack_linears(skeleton, source):
        return None
    # The first call of a kernel also finds its threads.
    generate_text(skeleton.model, tokenizer, PROMPT, 1)
    rate = _answer(skeleton, tokenizer).tokens_per_second
    return Packed(kernel=KERNEL, tokens_per_second=rate, resident_bytes=resident_bytes(skeleton.model))


def _answer(skeleton: Skeleton, tokenizer: PreTrainedTokenizerBase) -> Answer:
    started = time.perf_counter()
    text, tokens = generate_text(skeleton.model, tokenizer, PROMPT, MAX_NEW_TOKENS)
    return Answer(text=text, tokens=tokens, seconds=time.perf_counter() - started)
