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

from core.matmul import parts_of, times_lower_transposed, times_transposed
from core.profile import Work, span
from core.solver.hessian import Mismatch

TILE_ELEMENTS = 2**24
TILE_ROWS = 32


@span(Work.TARGET)
def wanted_change(W_OI: torch.Tensor, mismatch: Mismatch, *, alpha: float, beta: float) -> torch.Tensor:
    """Returns alpha W (G-H) + beta R, float32: what the outputs lack, in the metric of the inputs."""
    wanted_OI = times_transposed(W_OI, mismatch.difference_II, Work.TARGET).mul_(alpha)
    if beta > 0 and mismatch.drift_OI is not None:
        wanted_OI.add_(mismatch.drift_OI, alpha=beta)
    return wanted_OI


class Target:
    """W* for weights [O, I] of one input set, from V lower with VᵀV = (H+λI)⁻¹."""

    def __init__(self, mismatch: Mismatch, V_II: torch.Tensor, *, alpha: float, beta: float) -> None:
        self._mismatch = mismatch
        self._V_II = V_II
        self._alpha = alpha
        self._beta = beta

    @span(Work.TARGET)
    def of(self, W_OI: torch.Tensor) -> torch.Tensor:
        """Returns W*, float32; by way of I x I products if only W counts and has more rows, else of its rows."""
        alpha, beta, mismatch = self._alpha, self._beta, self._mismatch
        if W_OI.shape[0] > W_OI.shape[1] and (beta == 0 or mismatch.drift_OI is None):
            return times_transposed(W_OI, self._transposed_map_II, Work.TARGET).mul_(alpha).add_(W_OI)
        wanted_OI = wanted_change(W_OI, mismatch, alpha=alpha, beta=beta)
        rows = max(1, TILE_ELEMENTS // (W_OI.shape[1] * TILE_ROWS)) * TILE_ROWS
        for tile in torch.split(wanted_OI, rows):
            tile.copy_(self._over_hessian(tile))
        return wanted_OI.add_(W_OI)

    @cached_property
    def _transposed_map_II(self) -> torch.Tensor:  # noqa: N802 - shapes live in names
        """Returns (H+λI)⁻¹ (G-H)ᵀ."""
        return self._over_hessian(self._mismatch.difference_II.T).T.contiguous()

    def _over_hessian(self, A_OI: torch.Tensor) -> torch.Tensor:
        """Returns A (H+λI)⁻¹ = A Vᵀ V; no whole copy of V is made."""
        V_II = self._V_II
        halfway_OI, over_OI = times_lower_transposed(A_OI, V_II, Work.TARGET), A_OI.new_empty(A_OI.shape)
        for part in parts_of(V_II.shape[0]):
            since = slice(part.start, None)
            over_OI[:, part] = times_transposed(halfway_OI[:, since], V_II[since, part].T, Work.TARGET)
        return over_OI


def mismatch_target(mismatch: Mismatch, *, alpha: float, beta: float, damp: float) -> Target | None:
    """Returns W* = W + (alpha W (G-H) + beta R) (H+λI)⁻¹; None where H+λI has no Cholesky factor.

    damp is λ as a fraction of the mean of H's diagonal, see `Mismatch.inverse_factor`.
    """
    with span(Work.TARGET):
        V_II = mismatch.inverse_factor(damp)
    return None if V_II is None else Target(mismatch, V_II, alpha=alpha, beta=beta)
