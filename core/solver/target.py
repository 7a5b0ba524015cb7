"""The weights that a linear should be rounded from when its inputs already differ from the float model's.

With x0 the float model's input and x the quantized model's of the same token, the least-squares answer to W x0 ≈ Ŵ x is
W (G+λI)(H+λI)⁻¹, G = mean of x0 xᵀ, H = mean of x xᵀ (Qronos, arXiv 2505.11695, in closed form and damped), which is
W + W (G-H)(H+λI)⁻¹. Where the output is added to a residual stream that has drifted from r0 to r, what the inputs tell
of r0 - r can be made up for as well: W x0 + (r0 - r) ≈ Ŵ x adds R (H+λI)⁻¹, R = mean of (r0 - r) xᵀ.

Legend: O out_features, I in_features.
"""

from __future__ import annotations

from functools import cached_property

import torch

from core.profile import Work, span
from core.solver.division import Divisor
from core.solver.hessian import Mismatch
from core.solver.multiplication import rounded, times_transposed


@span(Work.TARGET)
def wanted_change(W_OI: torch.Tensor, mismatch: Mismatch, *, alpha: float, beta: float) -> torch.Tensor:
    """Returns alpha W (G-H) + beta R, float32: what the outputs lack, in the metric of the inputs."""
    wanted_OI = times_transposed(rounded(W_OI), mismatch.difference_II, Work.TARGET, factor=alpha)
    if beta > 0 and mismatch.drift_OI is not None:
        wanted_OI.add_(mismatch.drift_OI, alpha=beta)
    return wanted_OI


class Target:
    """W* for weights [O, I] of one input set. divisor: the damped Hessian's, see `Mismatch.divisor`."""

    def __init__(self, mismatch: Mismatch, divisor: Divisor, *, alpha: float, beta: float) -> None:
        self._mismatch = mismatch
        self._divisor = divisor
        self._alpha = alpha
        self._beta = beta

    @span(Work.TARGET)
    def of(self, W_OI: torch.Tensor) -> torch.Tensor:
        """Returns W*, float32; by way of I x I products if only W counts and has more rows, else of its rows."""
        alpha, beta, mismatch = self._alpha, self._beta, self._mismatch
        if W_OI.shape[0] > W_OI.shape[1] and (beta == 0 or mismatch.drift_OI is None):
            return times_transposed(rounded(W_OI), self._map_II.T, Work.TARGET, factor=alpha).add_(W_OI)
        wanted_OI = wanted_change(W_OI, mismatch, alpha=alpha, beta=beta)
        self._divisor.divide(wanted_OI)
        return wanted_OI.add_(W_OI)

    @cached_property
    def _map_II(self) -> torch.Tensor:  # noqa: N802 - shapes live in names
        """Returns (G-H) (H+λI)⁻¹."""
        map_II = self._mismatch.difference_II.T.clone(memory_format=torch.contiguous_format)
        self._divisor.divide(map_II)
        return map_II


def mismatch_target(mismatch: Mismatch, *, alpha: float, beta: float, damp: float) -> Target | None:
    """Returns W* = W + (alpha W (G-H) + beta R) (H+λI)⁻¹; None where H+λI has no Cholesky factor.

    damp is λ as a fraction of the mean of H's diagonal, see `Mismatch.divisor`.
    """
    with span(Work.TARGET):
        divisor = mismatch.divisor(damp)
    return None if divisor is None else Target(mismatch, divisor, alpha=alpha, beta=beta)
