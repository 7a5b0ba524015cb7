"""The weights that a linear should be rounded from when its inputs already differ from the float model's.

With x0 the float model's input and x the quantized model's of the same token, the least-squares answer to W x0 ≈ Ŵ x is
W (G+λI)(H+λI)⁻¹, G = mean of x0 xᵀ, H = mean of x xᵀ (Qronos, arXiv 2505.11695, in closed form and damped). Where the
output is added to a residual stream that has drifted from r0 to r, what the inputs tell of r0 - r can be made up for as
well: W x0 + (r0 - r) ≈ Ŵ x adds R (H+λI)⁻¹, R = mean of (r0 - r) xᵀ.

Legend: O out_features, I in_features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from core.profile import Work, count, span
from core.solver.hessian import Mismatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """W* = W map_II + shift_OI; no shift where there is no stream to make up for."""

    map_II: torch.Tensor  # noqa: N815 - shapes live in names
    shift_OI: torch.Tensor | None = None  # noqa: N815

    @span(Work.TARGET)
    def of(self, W_OI: torch.Tensor) -> torch.Tensor:
        """Returns W*, float32."""
        count(Work.TARGET, operations=2.0 * W_OI.numel() * self.map_II.shape[0], dtype="float32")
        target_OI = W_OI @ self.map_II
        return target_OI if self.shift_OI is None else target_OI + self.shift_OI


@span(Work.TARGET)
def mismatch_target(mismatch: Mismatch, *, alpha: float, beta: float, damp: float) -> Target | None:
    """Returns W* = W + alpha (W (G+λI)(H+λI)⁻¹ - W) + beta R (H+λI)⁻¹; None where H+λI has no Cholesky factor.

    damp is λ as a fraction of the mean of H's diagonal.
    """
    H_II, G_II = mismatch.hessian_II, mismatch.cross_II
    identity_II = torch.eye(H_II.shape[0], dtype=H_II.dtype, device=H_II.device)
    added_II = damp * H_II.diagonal().mean() * identity_II
    L_II, info = torch.linalg.cholesky_ex(H_II + added_II)
    if int(info) != 0:
        return None
    exact_II = torch.cholesky_solve((G_II + added_II).T, L_II).T
    shift_OI = None
    if beta > 0 and mismatch.drift_OI is not None:
        shift_OI = beta * torch.cholesky_solve(mismatch.drift_OI.T, L_II).T
    return Target(map_II=torch.lerp(identity_II, exact_II, alpha), shift_OI=shift_OI)
