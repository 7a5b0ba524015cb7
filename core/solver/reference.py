"""The kernels of `core.solver.kernels` in plain torch, for any device: slow, short, the oracle of the tests."""

from __future__ import annotations

import torch


def solve_columns(
    W_OC: torch.Tensor, U_CC: torch.Tensor, scales_OC: torch.Tensor, zeros_OC: torch.Tensor, top_code: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Solves the columns of one update; same contract as the kernel's."""
    codes_OC = torch.empty(W_OC.shape, dtype=torch.uint8, device=W_OC.device)
    residuals_OC = torch.empty_like(W_OC)
    for column in range(W_OC.shape[1]):
        weight_O, scale_O, zero_O = W_OC[:, column], scales_OC[:, column], zeros_OC[:, column]
        code_O = (torch.round(weight_O / scale_O) + zero_O).clamp(0, top_code)
        residual_O = (weight_O - scale_O * (code_O - zero_O)) / U_CC[column, column]
        codes_OC[:, column] = code_O.to(torch.uint8)
        residuals_OC[:, column] = residual_O
        W_OC[:, column + 1 :] -= torch.outer(residual_O, U_CC[column, column + 1 :])
    return codes_OC, residuals_OC


def best_candidate(
    W_OGS: torch.Tensor, cost_GS: torch.Tensor, scales_OGK: torch.Tensor, zeros_OGK: torch.Tensor, top_code: int
) -> torch.Tensor:
    """Returns the index of the best candidate per row and group; same contract as the kernel's."""
    losses = []
    for k in range(scales_OGK.shape[-1]):
        scale_OG1, zero_OG1 = scales_OGK[..., k, None], zeros_OGK[..., k, None]
        code_OGS = (torch.round(W_OGS * (1.0 / scale_OG1)) + zero_OG1).clamp(0, top_code)
        losses.append(((W_OGS - scale_OG1 * (code_OGS - zero_OG1)) ** 2 * cost_GS).sum(dim=-1))
    return torch.stack(losses, dim=-1).argmin(dim=-1)


def refine_codes(
    G_OC: torch.Tensor, H_CC: torch.Tensor, codes_OC: torch.Tensor, scales_O: torch.Tensor, top_code: int
) -> torch.Tensor:
    """Moves codes one by one, in place; same contract as the kernel's."""
    moves_OC = torch.empty_like(codes_OC)
    for column in range(codes_OC.shape[1]):
        bend_O = H_CC[column, column] * scales_O
        move_O = torch.where(bend_O == 0, 0.0, torch.round(-G_OC[:, column] / bend_O))
        code_O = (codes_OC[:, column] + move_O).clamp(0, top_code)
        moves_OC[:, column] = scales_O * (code_O - codes_OC[:, column])
        codes_OC[:, column] = code_O
        G_OC[:, column + 1 :] += torch.outer(moves_OC[:, column], H_CC[column, column + 1 :])
    return moves_OC
