"""Calibration text that the float model writes itself, where there is no other: sampled, seeded, the same every time.

Where the tokenizer has a chat template, the model is put where a user begins to speak and writes both sides; else it
begins with a word of its vocabulary. The whole model is in memory in its stored dtype: it is read once for each token.

Legend: B rows of a batch, T tokens of a row, K likeliest tokens.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from jinja2.exceptions import TemplateError

from core.calibration.windows import opening_tokens
from core.checkpoint.durable import replace_file
from core.checkpoint.identity import model_sha256
from core.checkpoint.reader import CheckpointReader
from core.configs import CalibrationConfig
from core.errors import CalibrationProblem, CalibrationRefusedError
from core.evaluation.loading import load_tokenizer
from core.model.skeleton import Skeleton
from core.preflight.resources import check_memory, generation_bytes
from core.preflight.source import inspect_source

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ROWS_PER_BATCH: Final = 16
LIKELIEST: Final = 50
RESERVE: Final = 1.15
"""More tokens than a draw needs: what is written as text and read again may be fewer."""
MAX_SECONDS: Final = 3600.0
MARK: Final = "\u2402"
"""Stands for what a user says, to find where that begins in a chat template's text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfText:
    """What is to be written: as many rows of seq_len tokens as a draw needs, and a few more."""

    rows: int
    seq_len: int
    seed: int

    @classmethod
    def for_draw(cls, config: CalibrationConfig) -> SelfText:
        """Returns what a draw needs."""
        return cls(rows=math.ceil(config.samples * RESERVE) + 1, seq_len=config.seq_len, seed=config.seed)


def write_self_text(
    model_dir: Path,
    wanted: SelfText,
    out: Path,
    *,
    advance: Callable[[int, int], None] = lambda *_: None,
    max_seconds: float = MAX_SECONDS,
) -> bool:
    """Writes the model's text to `out` as JSON Lines; returns False where it lies there already, from the same model.

    advance is told of each token of a batch, done and total, and may raise to stop. Raises InsufficientResourcesError
    where the model does not fit in memory, CalibrationRefusedError (TOO_SLOW) after max_seconds.
    """
    name = {"model": model_sha256(model_dir), "rows": wanted.rows, "seq_len": wanted.seq_len, "seed": wanted.seed}
    if _is_written(out, name):
        return False
    facts = inspect_source(model_dir)
    check_memory(generation_bytes(facts))
    tokenizer = load_tokenizer(model_dir)
    with CheckpointReader(model_dir) as reader, torch.inference_mode():
        skeleton = Skeleton.open(model_dir, reader, getattr(torch, facts.dtype))
        skeleton.load(reader, skeleton.names.source_of)
        writer = _Writer(skeleton.model, tokenizer, wanted, _Clock(wanted, advance, max_seconds))
        lines = [json.dumps({"text": text, "self": name}, ensure_ascii=False) + "\n" for text in writer.texts()]
    replace_file(out, [line.encode() for line in lines])
    return True


def _is_written(out: Path, name: dict[str, Any]) -> bool:
    try:
        with out.open("rb") as file:
            return bool(json.loads(file.readline()).get("self") == name)
    except (OSError, ValueError, AttributeError):
        return False


class _Clock:
    """Tells of each token, and ends what takes too long."""

    def __init__(self, wanted: SelfText, advance: Callable[[int, int], None], max_seconds: float) -> None:
        self._wanted = wanted
        self._advance = advance
        self._max_seconds = max_seconds
        self._started = time.monotonic()
        self._done = 0

    def tick(self) -> None:
        self._done += 1
        self._advance(self._done, math.ceil(self._wanted.rows / ROWS_PER_BATCH) * self._wanted.seq_len)
        if time.monotonic() - self._started > self._max_seconds:
            raise CalibrationRefusedError(
                CalibrationProblem.TOO_SLOW,
                f"The model did not write {self._wanted.rows} x {self._wanted.seq_len} tokens in "
                f"{self._max_seconds:,.0f} seconds.",
                "Lower samples or seq_len, or give a calibration text.",
            )


class _Writer:
    """Samples rows, batch by batch."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, wanted: SelfText, clock: _Clock
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._wanted = wanted
        self._clock = clock
        self._draw = random.Random(wanted.seed)  # noqa: S311 - a reproducible draw, not a secret
        self._generator = torch.Generator().manual_seed(wanted.seed)
        self._opening = opening_tokens(tokenizer)
        self._prefix = _user_prefix(tokenizer)

    def texts(self) -> list[str]:
        texts: list[str] = []
        while len(texts) < self._wanted.rows:
            count = min(ROWS_PER_BATCH, self._wanted.rows - len(texts))
            rows = self._sample(torch.tensor([self._start() for _ in range(count)]))
            texts += [str(self._tokenizer.decode(row[len(self._opening) :])) for row in rows.tolist()]
        return texts

    def _start(self) -> list[int]:
        if self._prefix is not None:
            return self._opening + self._prefix
        special = set(self._tokenizer.all_special_ids)
        words = len(self._tokenizer)
        while True:
            token = int(self._draw.random() * words)
            if token not in special:
                return [*self._opening, token]

    def _sample(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        fresh_BT, cache = tokens_BT, None
        while tokens_BT.shape[1] < self._wanted.seq_len:
            output = self._model(input_ids=fresh_BT, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            likeliest = output.logits[:, -1].float().topk(min(LIKELIEST, output.logits.shape[-1]))
            drawn_B1 = torch.multinomial(likeliest.values.softmax(dim=-1), 1, generator=self._generator)
            fresh_BT = likeliest.indices.gather(1, drawn_B1)
            tokens_BT = torch.cat([tokens_BT, fresh_BT], dim=1)
            self._clock.tick()
        return tokens_BT


def _user_prefix(tokenizer: PreTrainedTokenizerBase) -> list[int] | None:
    """Returns the tokens in front of what a user says, without the sequence's opening; None without a template."""
    if not tokenizer.chat_template:
        return None
    try:
        text = str(tokenizer.apply_chat_template([{"role": "user", "content": MARK}], tokenize=False))
    except TemplateError:
        return None  # a template that takes no lone user is for another use; the model begins with a word
    before, mark, _ = text.partition(MARK)
    if not mark:
        return None
    opening = str(tokenizer.decode(opening_tokens(tokenizer)))
    ids: list[int] = tokenizer(before.removeprefix(opening), add_special_tokens=False)["input_ids"]
    return ids or None
