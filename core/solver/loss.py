"""How much a quantized weight changes its linear's outputs, in the metric of the calibration inputs."""

from __future__ import annotations

import torch

from core.profile import Work, count, span
from core.solver.hessian import InputStatistics


@span(Work.LOSS)
def quadratic_loss(D_OI: torch.Tensor, H_II: torch.Tensor) -> float:
    """Returns tr(D H Dᵀ): with D = W - W_hat the mean squared change of the outputs, summed over them."""
    count(Work.LOSS, operations=2.0 * D_OI.numel() * H_II.shape[0], dtype="float32")
    return float(torch.einsum("oi,oi->", D_OI @ H_II, D_OI))


def target_loss(
    W_OI: torch.Tensor, W_hat_OI: torch.Tensor, inputs: InputStatistics, alpha: float, beta: float = 0.0
) -> float:
    """Returns the mean squared distance of W_hat x from (1-alpha) W x + alpha W x0 + beta (r0 - r), less a constant.

    x0 is the float model's input of the same token, r0 - r how far the residual stream has drifted there. With
    D = W_hat - W, G = mean of x0 xᵀ and R = mean of (r0 - r) xᵀ that is tr(D H Dᵀ) - 2 tr(D (alpha W (G-H) + beta R)ᵀ),
    less what W_hat cannot change; it may be negative. Without a float path it is the quadratic loss.
    """
    D_OI = W_hat_OI - W_OI
    mismatch = inputs.mismatch
    if mismatch is None:
        return quadratic_loss(D_OI, inputs.hessian_II)
    drift_II = mismatch.cross_II - mismatch.hessian_II
    wanted_OI = alpha * (W_OI @ drift_II)
    if mismatch.drift_OI is not None:
        wanted_OI += beta * mismatch.drift_OI
    return quadratic_loss(D_OI, inputs.hessian_II) - 2 * float(torch.einsum("oi,oi->", D_OI, wanted_OI))
