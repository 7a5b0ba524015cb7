"""The weights that a linear should be rounded from when its inputs already differ from the float model's.

With x0 the float model's input and x the quantized model's of the same token, the least-squares answer to W x0 ≈ Ŵ x is
W (G+λI)(H+λI)⁻¹, G = mean of x0 xᵀ, H = mean of x xᵀ (Qronos, arXiv 2505.11695, in closed form and damped). Where the
output is added to a residual stream that has drifted from r0 to r, what the inputs tell of r0 - r can be made up for as
well: W x0 + (r0 - r) ≈ Ŵ x adds R (H+λI)⁻¹, R = mean of (r0 - r) xᵀ.

Legend: O out_features, I in_features.
"""

from __future__ import annotations

from functools import cached_property

import torch

from core.matmul import times_transposed
from core.profile import Work, span
from core.solver.factor import inverse_factor
from core.solver.hessian import Mismatch


class Target:
    """W* for weights [O, I] of one input set, from V = L⁻¹ with LLᵀ = H+λI and so (H+λI)⁻¹ = VᵀV."""

    def __init__(self, mismatch: Mismatch, added: float, V_II: torch.Tensor, *, alpha: float, beta: float) -> None:
        """added: λ itself."""
        self._V_II = V_II
        self._alpha = alpha
        self._beta = beta
        self._cross_II = mismatch.cross_II.clone()
        self._cross_II.diagonal().add_(added)
        self._drift_OI = mismatch.drift_OI if beta > 0 else None

    @span(Work.TARGET)
    def of(self, W_OI: torch.Tensor) -> torch.Tensor:
        """Returns W*, float32; by way of I x I products if only W counts and has more rows, else of its rows."""
        if self._drift_OI is None and W_OI.shape[0] > W_OI.shape[1]:
            return torch.lerp(W_OI, times_transposed(W_OI, self._map_II.T, Work.TARGET), self._alpha)
        wanted_OI = self._alpha * times_transposed(W_OI, self._cross_II.T, Work.TARGET)
        if self._drift_OI is not None:
            wanted_OI += self._beta * self._drift_OI
        return self._over_hessian(wanted_OI).add_(W_OI, alpha=1 - self._alpha)

    @cached_property
    def _map_II(self) -> torch.Tensor:  # noqa: N802 - shapes live in names
        """Returns (G+λI)(H+λI)⁻¹."""
        return self._over_hessian(self._cross_II)

    def _over_hessian(self, A_OI: torch.Tensor) -> torch.Tensor:
        """Returns A (H+λI)⁻¹."""
        halfway_OI = times_transposed(A_OI, self._V_II, Work.TARGET)
        return times_transposed(halfway_OI, self._V_II.T, Work.TARGET)


@span(Work.TARGET)
def mismatch_target(mismatch: Mismatch, *, alpha: float, beta: float, damp: float) -> Target | None:
    """Returns W* = W + alpha (W (G+λI)(H+λI)⁻¹ - W) + beta R (H+λI)⁻¹; None where H+λI has no Cholesky factor.

    damp is λ as a fraction of the mean of H's diagonal.
    """
    damped_II = mismatch.hessian_II.clone()
    added = damp * float(damped_II.diagonal().mean())
    damped_II.diagonal().add_(added)
    V_II = inverse_factor(damped_II)
    return None if V_II is None else Target(mismatch, added, V_II, alpha=alpha, beta=beta)
