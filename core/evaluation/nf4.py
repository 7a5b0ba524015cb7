"""The float model with the linears of its blocks rounded to bitsandbytes' NF4: what loading it in 4 bits would give.

Blocks of 64 weights share a float32 scale. bitsandbytes does the rounding; nothing is calibrated, nothing is written.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from transformers.pytorch_utils import Conv1D

from core.checkpoint.reader import CheckpointReader
from core.errors import MissingPackageError
from core.evaluation.loading import open_weights
from core.model.skeleton import Skeleton, TensorSource
from core.model.structure import find_linears

BLOCK = 64
SCALE_BYTES = 4


@dataclass(frozen=True, slots=True)
class NF4:
    """A float model folder to be looked at in NF4; raises MissingPackageError where bitsandbytes is not installed."""

    folder: Path

    def __post_init__(self) -> None:
        """Fails early: before what it is compared with is computed."""
        _bitsandbytes()

    @property
    def name(self) -> str:
        """Returns how it is called in a table."""
        return f"{self.folder.name} in NF4"

    @contextmanager
    def open(self) -> Iterator[tuple[Skeleton, TensorSource]]:
        """Yields the model without weights and the rounded weights; raises as `open_weights`."""
        with CheckpointReader(self.folder) as reader:
            skeleton, source = open_weights(self.folder, reader)
            linears = _stored_linears(skeleton)
            yield skeleton, _RoundedSource(source=source, linears=linears, functional=_bitsandbytes())

    def weight_bytes(self) -> int:
        """Returns what the weights would take: half a byte and their share of a scale in linears, else as stored."""
        with CheckpointReader(self.folder) as reader:
            skeleton, _ = open_weights(self.folder, reader)
            linears = _stored_linears(skeleton)
            return sum(
                _packed_bytes(reader.shape(name)) if name in linears else reader.nbytes(name) for name in reader.names()
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _RoundedSource:
    """linears: stored names of the weights to round, and whether each is stored as [in, out]."""

    source: TensorSource
    linears: dict[str, bool]
    functional: ModuleType

    def names(self) -> tuple[str, ...]:
        return self.source.names()

    def tensor(self, name: str) -> torch.Tensor:
        tensor = self.source.tensor(name)
        if name not in self.linears:
            return tensor
        # bitsandbytes groups along the rows of [out, in], whatever the checkpoint stores.
        return self._rounded(tensor.T).T if self.linears[name] else self._rounded(tensor)

    def _rounded(self, W_OI: torch.Tensor) -> torch.Tensor:
        # Flat, which makes the same blocks: bitsandbytes 0.50 on the CPU gives wrong values back for rows that are
        # wider than a block and no multiple of it.
        codes, state = self.functional.quantize_4bit(
            W_OI.float().flatten(), blocksize=BLOCK, quant_type="nf4", compress_statistics=False
        )
        flat: torch.Tensor = self.functional.dequantize_4bit(codes, state)
        return flat.reshape(W_OI.shape)


def _stored_linears(skeleton: Skeleton) -> dict[str, bool]:
    source_of = skeleton.names.source_of
    return {
        source_of[f"{skeleton.blocks.path(index)}.{path}.weight"]: isinstance(module, Conv1D)
        for index, block in enumerate(skeleton.blocks.modules)
        for path, module in find_linears(block).items()
    }


def _packed_bytes(shape: tuple[int, ...]) -> int:
    weights = torch.Size(shape).numel()
    return -(-weights // 2) + SCALE_BYTES * -(-weights // BLOCK)


def _bitsandbytes() -> ModuleType:
    # It tells at import that a fast kernel is missing, which rounding does not use.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        from bitsandbytes import functional  # noqa: PLC0415 - an extra, which takes seconds to import
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] != "bitsandbytes":
            raise
        raise MissingPackageError("NF4", "bitsandbytes", "nf4") from error
    return functional
