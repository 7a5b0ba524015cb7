"""How much a quantized weight changes its linear's outputs, in the metric of the calibration inputs."""

from __future__ import annotations

import torch

from core.profile import Work, span
from core.solver.multiplication import quadratic_form, times_elementwise


@span(Work.LOSS)
def quadratic_loss(D_OI: torch.Tensor, H_II: torch.Tensor) -> float:
    """Returns tr(D H Dᵀ): with D = W - W_hat the mean squared change of the outputs, summed over them.

    H is symmetric. Rounding to bfloat16 moves the loss of a few weights by a thousandth, of a linear by far less.
    """
    return quadratic_form(D_OI, H_II, Work.LOSS)


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
