"""How much a quantized weight changes its linear's outputs, in the metric of the calibration inputs."""

from __future__ import annotations

import torch

from core.environment import forward_dtype
from core.matmul import parts_of, times_elementwise, times_transposed
from core.profile import Work, span


@span(Work.LOSS)
def quadratic_loss(D_OI: torch.Tensor, H_II: torch.Tensor) -> float:
    """Returns tr(D H Dᵀ): with D = W - W_hat the mean squared change of the outputs, summed over them."""
    total = 0.0
    for part in parts_of(H_II.shape[0]):
        # H is symmetric: what lies left of a part counts for what lies above it too.
        before, inside_OI = slice(part.start), D_OI[:, part].contiguous()
        product_OI = times_transposed(inside_OI, H_II[part, part], Work.LOSS)
        if part.start:
            product_OI.add_(times_transposed(D_OI[:, before], H_II[part, before], Work.LOSS), alpha=2)
        total += times_elementwise(product_OI, inside_OI)
    return total


@span(Work.LOSS)
def output_energy(W_OI: torch.Tensor, H_II: torch.Tensor) -> float:
    """Returns tr(W H Wᵀ), the mean square of the outputs, summed over them.

    Unlike a loss it is no small difference of large numbers, and the engine only divides by it: where blocks run in
    bfloat16 so does its product, whose rounding errors are many, small and of either sign.
    """
    dtype = forward_dtype("bfloat16", W_OI.device)
    product_OI = times_transposed(W_OI.to(dtype), H_II.to(dtype), Work.LOSS)
    return times_elementwise(product_OI.float(), W_OI)


class TargetLoss:
    """The mean squared distance of W_hat x from (1-alpha) W x + alpha W x0 + beta (r0 - r), less a constant.

    x0 is the float model's input of the same token, r0 - r how far the residual stream has drifted there. With
    D = W_hat - W and A what `core.solver.target.wanted_change` finds, that is tr(D H Dᵀ) - 2 tr(D Aᵀ), less what W_hat
    cannot change; it may be negative. Without a float path it is the quadratic loss.
    """

    def __init__(self, W_OI: torch.Tensor, H_II: torch.Tensor, wanted_OI: torch.Tensor | None) -> None:
        self._W_OI = W_OI
        self._H_II = H_II
        self._wanted_OI = wanted_OI

    def of(self, W_hat_OI: torch.Tensor) -> float:
        """Returns the loss of a solved weight."""
        D_OI = W_hat_OI - self._W_OI
        loss = quadratic_loss(D_OI, self._H_II)
        return loss if self._wanted_OI is None else loss - 2 * times_elementwise(D_OI, self._wanted_OI)
