"""How much a quantized weight changes its linear's outputs, in the metric of the calibration inputs."""

from __future__ import annotations

import torch


def quadratic_loss(D_OI: torch.Tensor, H_II: torch.Tensor) -> float:
    """Returns tr(D H Dᵀ): with D = W - W_hat the mean squared change of the outputs, summed over them."""
    return float(torch.einsum("oi,oi->", D_OI @ H_II, D_OI))
