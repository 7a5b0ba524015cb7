"""Quantizes a matrix outside the blocks, the head or the embedding, in tiles of its rows.

A row's codes hang on the statistics and on that row alone, so that a large vocabulary needs the memory of one tile.

Legend: O out_features, I in_features.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from core.errors import NumericalError
from core.events import Event, WarningRaised
from core.quantizers.base import BaseQuantizer, SolvedLinear
from core.quantizers.task import SolvedBlock, linear_event
from core.solver.held_out import HeldOutAccumulator
from core.solver.hessian import HessianAccumulator, InputStatistics
from core.weights import QuantizedWeight

TILE_ELEMENTS: Final = 2**25
"""Weights of a tile, at most: about as many as the largest linears inside blocks have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadBatch:
    """One batch's inputs [B, T, I] of the head. float_inputs: the float model's; None where it was not carried."""

    inputs: torch.Tensor
    token_mask: torch.Tensor | None = None
    float_inputs: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OuterTask:
    """What is quantized. index: of the step, behind the last block's. name: the module's path.

    beat: asked before each tile, and by methods that iterate; it raises where the work must stop.
    """

    index: int
    name: str
    quantizer: BaseQuantizer[Any]
    on_event: Callable[[Event], None]
    beat: Callable[[], None] = lambda: None
    tile_elements: int = TILE_ELEMENTS


def head_statistics(quantizer: BaseQuantizer[Any], batches: Iterable[HeadBatch]) -> InputStatistics | None:
    """Returns the statistics of all batches; None without any."""
    collector: HessianAccumulator | HeldOutAccumulator | None = None
    kind = HeldOutAccumulator if quantizer.holds_out else HessianAccumulator
    for number, batch in enumerate(batches):
        collector = collector or kind(batch.inputs.shape[-1], batch.inputs.device)
        collector.of_batch(number).add(batch.inputs, batch.token_mask, batch.float_inputs)
    return None if collector is None else collector.finish()


def quantize_outer(task: OuterTask, W_OI: torch.Tensor, statistics: InputStatistics | None) -> SolvedBlock:
    """Returns the matrix as a block of one linear, which nothing leaves. Raises NumericalError with its name."""
    started = time.perf_counter()
    rows = max(1, task.tile_elements // W_OI.shape[1])
    task.quantizer.beat = task.beat
    tiles = []
    try:
        prepared = task.quantizer.prepare(statistics)
        for tile_OI in torch.split(W_OI, rows):
            task.beat()
            tiles.append(task.quantizer.convert(tile_OI, prepared))
    except NumericalError as error:
        raise NumericalError(task.name, error.detail) from error
    solved = _joined(task.name, tiles)
    seconds = time.perf_counter() - started
    task.on_event(linear_event(task.index, task.name, solved, seconds))
    for message in solved.warnings:
        task.on_event(WarningRaised(code="linear", message=message, block=task.index, linear=task.name))
    return SolvedBlock(outputs=[], linears={task.name: solved}, seconds={task.name: seconds})


def _joined(name: str, tiles: Sequence[SolvedLinear]) -> SolvedLinear:
    """Returns one linear from tiles of its rows."""
    first, weights = tiles[0], [tile.weight for tile in tiles]
    if not all(torch.equal(weight.g_idx_I, first.weight.g_idx_I) for weight in weights):
        raise NumericalError(name, "tiles of its rows chose different groups.")
    weight = QuantizedWeight(
        codes_OI=torch.cat([weight.codes_OI for weight in weights]),
        scales_OG=torch.cat([weight.scales_OG for weight in weights]),
        zeros_OG=torch.cat([weight.zeros_OG for weight in weights]),
        g_idx_I=first.weight.g_idx_I,
        bits=first.weight.bits,
        group_size=first.weight.group_size,
        sym=first.weight.sym,
    )
    loss, energy = _loss_and_energy(tiles)
    return SolvedLinear(
        weight=weight,
        loss=loss,
        relative_loss=None if loss is None else loss / energy if energy > 0 else 0.0,
        tokens=first.tokens,
        damp_percent=first.damp_percent,
        order=", ".join(dict.fromkeys(tile.order for tile in tiles if tile.order is not None)) or None,
        refined=None if first.refined is None else any(tile.refined for tile in tiles),
        warnings=tuple(dict.fromkeys(message for tile in tiles for message in tile.warnings)),
    )


def _loss_and_energy(tiles: Sequence[SolvedLinear]) -> tuple[float | None, float]:
    """Returns the sums over tiles of the loss and of tr(W H Wᵀ), which is loss / relative_loss."""
    losses = [(tile.loss, tile.relative_loss) for tile in tiles if tile.loss is not None]
    if not losses:
        return None, 0.0
    return sum(loss for loss, _ in losses), sum(loss / relative for loss, relative in losses if relative)
