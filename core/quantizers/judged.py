"""What methods with a Hessian share: the losses of a solved weight, and what its inputs give cause to say."""

from __future__ import annotations

import torch

from core.quantizers.base import SolvedLinear
from core.solver.hessian import InputStatistics
from core.solver.loss import quadratic_loss
from core.weights import QuantizedWeight

STARVED = "No calibration token reached this linear; it was rounded to nearest."


def judged(
    W_OI: torch.Tensor, weight: QuantizedWeight, statistics: InputStatistics, warnings: tuple[str, ...] = ()
) -> SolvedLinear:
    """Returns a weight with its losses on the calibration inputs; W float32, warnings beside those of the inputs."""
    loss = quadratic_loss(weight.dequantize().sub_(W_OI), statistics.hessian_II)
    energy = quadratic_loss(W_OI, statistics.hessian_II)  # the outputs' own mean square
    return SolvedLinear(
        weight=weight,
        loss=loss,
        relative_loss=loss / energy if energy > 0 else 0.0,
        tokens=statistics.tokens,
        warnings=(*input_warnings(statistics), *warnings),
    )


def input_warnings(statistics: InputStatistics) -> tuple[str, ...]:
    """Returns a sentence for each thing about the inputs that makes a result less sure."""
    width = statistics.hessian_II.shape[0]
    found = []
    if statistics.tokens < width:
        found.append(f"Only {statistics.tokens} calibration tokens for {width} inputs; use at least as many as inputs.")
    if statistics.dead_inputs:
        found.append(f"{statistics.dead_inputs} inputs were 0 in every calibration token; their weights were rounded.")
    if statistics.dropped_rows:
        found.append(f"{statistics.dropped_rows} calibration tokens had values that are not finite and were left out.")
    return tuple(found)
