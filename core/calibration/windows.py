"""Turns documents into a seeded, counted set of token windows [N, T]: packed or per document, never padded.

It does not read files (`texts`) and does not run a model. Legend: N samples, T tokens per window.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

import torch

from core.calibration.chat import rendered
from core.configs import CalibrationConfig, Packing
from core.errors import CalibrationProblem, CalibrationRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from transformers import PreTrainedTokenizerBase

    from core.calibration.documents import Document

SEPARATOR = "\n\n"
PIECE_CHARS = 32_768  # tokenizers slow down on very long strings; pieces end at line ends, so nothing is cut in a word
PIECES_PER_CALL = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationWindows:
    """The windows that a run is calibrated on, or measured on.

    tokens_NT: int64 [samples, seq_len]. sha256: digest of shape and tokens. tokens_available: tokens in the text.
    documents: how many the text has, 0 where nobody counted.
    """

    tokens_NT: torch.Tensor  # noqa: N815 - shapes live in names (style.md)
    sha256: str
    tokens_available: int
    documents: int = 0
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
    documents: Iterable[Document],
    tokenizer: PreTrainedTokenizerBase,
    config: CalibrationConfig,
) -> CalibrationWindows:
    """Returns `config.samples` windows of `config.seq_len` tokens, drawn by `config.seed` from the text.

    Packed: the documents are joined by an empty line (conversations by nothing, their template ends them), tokenized
    once and cut into equal, adjacent windows at an offset that the seed chooses; the seed then chooses which windows,
    and their order. Per document: the seed chooses documents that fill a window, and a place in each. Where the
    tokenizer opens every sequence with special tokens (BOS), each window opens with them. Raises
    CalibrationRefusedError with both counts where the text has too few tokens, and as `chat.rendered`.
    """
    opening = opening_tokens(tokenizer)
    stride = config.seq_len - len(opening)
    counted = _Counted(documents)
    generator = random.Random(config.seed)  # noqa: S311 - a reproducible draw, not a secret
    match config.packing:
        case Packing.PACKED:
            tokens = _tokenize(counted, tokenizer)
            _refuse_too_few(len(tokens), config, stride)
            offset = _below(generator, len(tokens) % stride + 1)
            chosen = _choose(generator, (len(tokens) - offset) // stride, config.samples)
            rows = [opening + tokens[offset + n * stride : offset + (n + 1) * stride] for n in chosen]
            return _windows(rows, len(tokens), counted.number)
        case Packing.DOCUMENT:
            texts = _tokenize_each(counted, tokenizer)
            rows = [opening + part for part in _draw_parts(generator, texts, config, stride)]
            return _windows(rows, sum(map(len, texts)), counted.number)
        case _:
            assert_never(config.packing)


def consecutive_windows(
    documents: Iterable[Document],
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


def _draw_parts(
    generator: random.Random, texts: list[list[int]], config: CalibrationConfig, stride: int
) -> list[list[int]]:
    """Returns one part of `stride` tokens from each of `config.samples` documents that are long enough."""
    filling = [tokens for tokens in texts if len(tokens) >= stride]
    if len(filling) < config.samples:
        raise CalibrationRefusedError(
            CalibrationProblem.TOO_FEW_TOKENS,
            f"{len(filling):,} of the calibration text's {len(texts):,} documents fill a window of {config.seq_len} "
            f"tokens, {config.samples} are needed.",
            f"Give longer documents, lower seq_len, set samples to at most {len(filling)}, or use packed windows.",
            tokens_available=sum(map(len, texts)),
            tokens_needed=config.samples * stride,
        )
    parts = []
    for number in _choose(generator, len(filling), config.samples):
        start = _below(generator, len(filling[number]) - stride + 1)
        parts.append(filling[number][start : start + stride])
    return parts


def _windows(rows: list[list[int]], tokens_available: int, documents: int = 0) -> CalibrationWindows:
    tokens_NT = torch.tensor(rows, dtype=torch.int64)
    return CalibrationWindows(
        tokens_NT=tokens_NT, sha256=_digest(tokens_NT), tokens_available=tokens_available, documents=documents
    )


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


class _Counted:
    """Passes documents on and counts them."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._documents = documents
        self.number = 0

    def __iter__(self) -> Iterator[Document]:
        for document in self._documents:
            self.number += 1
            yield document


def _tokenize_each(documents: Iterable[Document], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    return [
        [token for ids in _ids(tokenizer, list(_cut(text)), add_special_tokens=False) for token in ids]
        for text, _ in rendered(documents, tokenizer)
        if text
    ]


def _tokenize(documents: Iterable[Document], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    tokens: list[int] = []
    batch: list[str] = []
    for piece in _pieces(rendered(documents, tokenizer)):
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


def _pieces(texts: Iterable[tuple[str, bool]]) -> Iterator[str]:
    """Yields the joined documents in pieces; conversations are joined by nothing."""
    for number, (text, is_conversation) in enumerate(texts):
        yield from _cut(text if is_conversation or not number else SEPARATOR + text)


def _cut(text: str) -> Iterator[str]:
    """Yields a text in pieces of about PIECE_CHARS that end at a line end where there is one."""
    start = 0
    while start < len(text):
        end = start + PIECE_CHARS
        if end < len(text):
            end = text.rfind("\n", start + 1, end) + 1 or end
        yield text[start:end]
        start = end
