"""The weights that a linear should be rounded from when its inputs already differ from the float model's.

With x0 the float model's input and x the quantized model's of the same token, the least-squares answer to W x0 ≈ Ŵ x is
W (G+λI)(H+λI)⁻¹, G = mean of x0 xᵀ, H = mean of x xᵀ (Qronos, arXiv 2505.11695, in closed form and damped).

Legend: O out_features, I in_features.
"""

from __future__ import annotations

import torch

from core.profile import Work, count, span


@span(Work.TARGET)
def moved_target(W_OI: torch.Tensor, map_II: torch.Tensor) -> torch.Tensor:
    """Returns W* = W A for the map of `mismatch_map`."""
    count(Work.TARGET, operations=2.0 * W_OI.numel() * map_II.shape[0], dtype="float32")
    return W_OI @ map_II


@span(Work.TARGET)
def mismatch_map(H_II: torch.Tensor, G_II: torch.Tensor, alpha: float, damp: float) -> torch.Tensor | None:
    """Returns A [I, I] with W* = W A = W + alpha (W (G+λI)(H+λI)⁻¹ - W); None where H+λI has no Cholesky factor."""
    identity_II = torch.eye(H_II.shape[0], dtype=H_II.dtype, device=H_II.device)
    L_II, info = torch.linalg.cholesky_ex(H_II + damp * identity_II)
    if int(info) != 0:
        return None
    exact_II = torch.cholesky_solve((G_II + damp * identity_II).T, L_II).T
    return torch.lerp(identity_II, exact_II, alpha)
