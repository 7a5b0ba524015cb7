"""Runs a model folder on token windows with one block in memory at a time; its logits come window by window.

What is kept between blocks are the hidden states of all windows. Legend: N windows, T tokens in one, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from core.checkpoint.reader import CheckpointReader
from core.evaluation.loading import open_weights
from core.evaluation.nf4 import NF4
from core.matmul import linears_at_full_rate
from core.model.capture import CapturedBatch, ModelCall, capture, logits_behind
from core.model.skeleton import Skeleton, TensorSource


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerwiseModel:
    """A float checkpoint, as it is or in NF4, or one of our artifacts, computed in float32; open it with `open`."""

    skeleton: Skeleton
    source: TensorSource

    @classmethod
    @contextmanager
    def open(cls, model: Path | NF4) -> Iterator[Self]:
        """Yields the model without weights; raises as `load_model`."""
        opened = model.open() if isinstance(model, NF4) else _open(model)
        with opened as (skeleton, source), torch.inference_mode(), linears_at_full_rate():
            yield cls(skeleton=skeleton, source=source)

    @property
    def blocks(self) -> int:
        """Returns how many blocks `pass_blocks` passes."""
        return len(self.skeleton.blocks.modules)

    def pass_blocks(self, tokens_NT: torch.Tensor, on_block: Callable[[], None]) -> list[torch.Tensor]:
        """Returns the hidden states [1, T, hidden] that leave the last block, per window.

        on_block is told of every block that is done and may raise to stop.
        """
        captured, states = self._enter(tokens_NT)
        for index, block in enumerate(self.skeleton.blocks.modules):
            targets = self.skeleton.block_targets(index)
            self.skeleton.load(self.source, targets)
            states = [
                batch.arguments[index].call(block, hidden) for batch, hidden in zip(captured, states, strict=True)
            ]
            self.skeleton.drop(targets)
            on_block()
        return states

    def load_ends(self) -> None:
        """Loads what stands before and behind the blocks, for `logits`."""
        self.skeleton.load(self.source, self.skeleton.outer_targets())

    def logits(self, tokens_T: torch.Tensor, leaving: torch.Tensor) -> torch.Tensor:
        """Returns one window's logits, float32 [T, V], from what left the last block on it."""
        return logits_behind(self.skeleton.model, self.skeleton.blocks.modules, _call(tokens_T), leaving)[0].float()

    def _enter(self, tokens_NT: torch.Tensor) -> tuple[list[CapturedBatch], list[torch.Tensor]]:
        embedding = self.skeleton.embedding_targets()
        self.skeleton.load(self.source, embedding)
        calls = [_call(tokens_T) for tokens_T in tokens_NT]
        entered = capture(self.skeleton.model, self.skeleton.blocks.modules, calls, lambda _: None)
        self.skeleton.drop(embedding)
        return entered


@contextmanager
def _open(model_dir: Path) -> Iterator[tuple[Skeleton, TensorSource]]:
    with CheckpointReader(model_dir) as reader:
        yield open_weights(model_dir, reader)


def _call(tokens_T: torch.Tensor) -> ModelCall:
    return (), {"input_ids": tokens_T[None]}
