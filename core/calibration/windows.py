"""Turns documents into a seeded, counted set of token windows [N, T]: packed, never overlapping, never padded.

It does not read files (`texts`) and does not run a model. Legend: N samples, T tokens per window.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from core.configs import CalibrationConfig
from core.errors import CalibrationProblem, CalibrationRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from transformers import PreTrainedTokenizerBase

SEPARATOR = "\n\n"
PIECE_CHARS = 32_768  # tokenizers slow down on very long strings; pieces end at line ends, so nothing is cut in a word
PIECES_PER_CALL = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationWindows:
    """The windows that a run is calibrated on, or measured on.

    tokens_NT: int64 [samples, seq_len]. sha256: digest of shape and tokens. tokens_available: tokens in the text.
    """

    tokens_NT: torch.Tensor  # noqa: N815 - shapes live in names (style.md)
    sha256: str
    tokens_available: int
    warnings: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        """Returns N."""
        return self.tokens_NT.shape[0]

    @property
    def seq_len(self) -> int:
        """Returns T."""
        return self.tokens_NT.shape[1]


def draw_windows(
    documents: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    config: CalibrationConfig,
) -> CalibrationWindows:
    """Returns `config.samples` windows of `config.seq_len` tokens, drawn by `config.seed` from the packed text.

    The documents are joined by an empty line, tokenized once and cut into equal, adjacent windows at an offset that the
    seed chooses; the seed then chooses which windows, and their order. Where the tokenizer opens every sequence
    with special tokens (BOS), each window opens with them. Raises CalibrationRefusedError with both counts where the
    text has too few tokens.
    """
    opening = opening_tokens(tokenizer)
    stride = config.seq_len - len(opening)
    tokens = _tokenize(documents, tokenizer)
    _refuse_too_few(len(tokens), config, stride)
    generator = random.Random(config.seed)  # noqa: S311 - a reproducible draw, not a secret
    offset = _below(generator, len(tokens) % stride + 1)
    chosen = _choose(generator, (len(tokens) - offset) // stride, config.samples)
    return _windows([opening + tokens[offset + n * stride : offset + (n + 1) * stride] for n in chosen], len(tokens))


def consecutive_windows(
    documents: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    seq_len: int,
    max_samples: int | None = None,
) -> CalibrationWindows:
    """Returns the text's windows of `seq_len` tokens in reading order, at most `max_samples`: what perplexity is of.

    Raises CalibrationRefusedError where the text does not fill one window.
    """
    opening = opening_tokens(tokenizer)
    stride = seq_len - len(opening)
    tokens = _tokenize(documents, tokenizer)
    _refuse_too_few(len(tokens), CalibrationConfig(samples=1, seq_len=seq_len), stride)
    count = min(len(tokens) // stride, max_samples or len(tokens))
    return _windows([opening + tokens[n * stride : (n + 1) * stride] for n in range(count)], len(tokens))


def opening_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Returns the special tokens that the tokenizer puts in front of every sequence; often none."""
    bare = _ids(tokenizer, ["a"], add_special_tokens=False)[0]
    dressed = _ids(tokenizer, ["a"], add_special_tokens=True)[0]
    for start in range(len(dressed) - len(bare) + 1):
        if dressed[start : start + len(bare)] == bare:
            return dressed[:start]
    return []


def _choose(generator: random.Random, population: int, count: int) -> list[int]:
    """Returns `count` different numbers below `population`, in the order drawn (Fisher and Yates)."""
    numbers = list(range(population))
    for position in range(count):
        other = position + _below(generator, population - position)
        numbers[position], numbers[other] = numbers[other], numbers[position]
    return numbers[:count]


def _below(generator: random.Random, limit: int) -> int:
    # Of all its methods, Python promises the same sequence in every version for random() only.
    return int(generator.random() * limit)


def _windows(rows: list[list[int]], tokens_available: int) -> CalibrationWindows:
    tokens_NT = torch.tensor(rows, dtype=torch.int64)
    return CalibrationWindows(tokens_NT=tokens_NT, sha256=_digest(tokens_NT), tokens_available=tokens_available)


def _digest(tokens_NT: torch.Tensor) -> str:
    """Returns the SHA-256 of the shape and of the tokens as little-endian 64-bit integers."""
    digest = hashlib.sha256(f"{tokens_NT.shape[0]}x{tokens_NT.shape[1]}:".encode())
    digest.update(tokens_NT.numpy().astype("<i8", copy=False).tobytes())
    return digest.hexdigest()


def _refuse_too_few(available: int, config: CalibrationConfig, stride: int) -> None:
    needed = config.samples * stride
    if available >= needed:
        return
    raise CalibrationRefusedError(
        CalibrationProblem.TOO_FEW_TOKENS,
        f"The calibration text has {available:,} tokens, {config.samples} x {config.seq_len} need {needed:,}.",
        f"Give more text, or set samples to at most {available // stride}.",
        tokens_available=available,
        tokens_needed=needed,
    )


def _tokenize(documents: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    tokens: list[int] = []
    batch: list[str] = []
    for piece in _pieces(documents):
        batch.append(piece)
        if len(batch) == PIECES_PER_CALL:
            tokens.extend(token for ids in _ids(tokenizer, batch, add_special_tokens=False) for token in ids)
            batch.clear()
    if batch:
        tokens.extend(token for ids in _ids(tokenizer, batch, add_special_tokens=False) for token in ids)
    return tokens


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str], *, add_special_tokens: bool) -> list[list[int]]:
    # verbose=False: a text longer than the model's context is what we want to cut up, not a mistake to warn of.
    encoded = tokenizer(texts, add_special_tokens=add_special_tokens, return_attention_mask=False, verbose=False)
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def _pieces(documents: Iterable[str]) -> Iterator[str]:
    """Yields the joined documents in pieces of about PIECE_CHARS that end at a line end where there is one."""
    for number, document in enumerate(documents):
        text = SEPARATOR + document if number else document
        start = 0
        while start < len(text):
            end = start + PIECE_CHARS
            if end < len(text):
                end = text.rfind("\n", start + 1, end) + 1 or end
            yield text[start:end]
            start = end
