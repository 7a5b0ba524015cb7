"""The kernels of `core.solver.kernels` in plain torch, for any device: slow, short, the oracle of the tests."""

from __future__ import annotations

import torch

from core.kernels.columns import RefinedColumns


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
    W_OGS: torch.Tensor, cost_GS: torch.Tensor, scales_OGK: torch.Tensor, zero: int, top_code: int
) -> torch.Tensor:
    """Returns the index of the best candidate per row and group; same contract as the kernel's."""
    losses = []
    for k in range(scales_OGK.shape[-1]):
        scale_OG1 = scales_OGK[..., k, None]
        level_OGS = torch.round(W_OGS * (1.0 / scale_OG1)).clamp(-zero, top_code - zero)
        losses.append(((W_OGS - scale_OG1 * level_OGS) ** 2 * cost_GS).sum(dim=-1))
    return torch.stack(losses, dim=-1).argmin(dim=-1)


def best_scale_and_zero(
    W_OGS: torch.Tensor, cost_GS: torch.Tensor, scales_OGK: torch.Tensor, zeros_OG: torch.Tensor, top_code: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the best scale's index and its best zero per row and group; same contract as the kernel's."""
    found = [
        _downhill(W_OGS, cost_GS, scales_OGK[..., k, None], zeros_OG[..., None], top_code)
        for k in range(scales_OGK.shape[-1])
    ]
    best_OG = torch.stack([loss_OG for loss_OG, _ in found], dim=-1).argmin(dim=-1)
    zeros_OGK = torch.stack([zero_OG for _, zero_OG in found], dim=-1)
    return best_OG, zeros_OGK.gather(-1, best_OG[..., None])[..., 0]


def _downhill(
    W_OGS: torch.Tensor, cost_GS: torch.Tensor, scale_OG1: torch.Tensor, zero_OG1: torch.Tensor, top_code: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Walks each group's zero to where neither neighbour has a lower loss; returns loss and zero, [O, G] each."""
    level_OGS = torch.round(W_OGS * (1.0 / scale_OG1))

    def loss(zero_OG1: torch.Tensor) -> torch.Tensor:
        inside_OGS = torch.minimum(torch.maximum(level_OGS, -zero_OG1), top_code - zero_OG1)
        lost_OG1 = ((W_OGS - scale_OG1 * inside_OGS) ** 2 * cost_GS).sum(dim=-1, keepdim=True)
        return torch.where((zero_OG1 < 0) | (zero_OG1 > top_code), torch.inf, lost_OG1)

    while True:
        here_OG1 = loss(zero_OG1)
        up_OG1 = loss(zero_OG1 + 1) < here_OG1
        down_OG1 = ~up_OG1 & (loss(zero_OG1 - 1) < here_OG1)
        if not bool((up_OG1 | down_OG1).any()):
            return here_OG1[..., 0], zero_OG1[..., 0]
        zero_OG1 = zero_OG1 + up_OG1.float() - down_OG1.float()


def step_scales(columns: RefinedColumns, gradient_OS: torch.Tensor, image_OS: torch.Tensor) -> torch.Tensor:
    """Moves scales to their least-squares values; same contract as the kernel's."""
    slope_O, bend_O = ((columns.levels_OC * factor_OS).sum(dim=1) for factor_OS in (gradient_OS, image_OS))
    scale_O = (columns.scales_O - slope_O / bend_O).half().float()
    step_O = scale_O - columns.scales_O
    better_O = (bend_O > 0) & torch.isfinite(scale_O) & (scale_O * columns.scales_O > 0)
    better_O &= 2 * step_O * slope_O + step_O.square() * bend_O < 0
    step_O = torch.where(better_O, step_O, 0.0)
    columns.scales_O.add_(step_O)
    return step_O


def refine_codes(
    columns: RefinedColumns,
    gradient_OC: torch.Tensor,
    image_OC: torch.Tensor,
    step_O: torch.Tensor,
    H_CC: torch.Tensor,
    top_code: int,
) -> torch.Tensor:
    """Moves codes one by one, in place; same contract as the kernel's."""
    codes_OC, scales_O = columns.codes_OC, columns.scales_O
    gradient_OC = gradient_OC + step_O[:, None] * image_OC
    columns.difference_OC.add_(step_O[:, None] * columns.levels_OC)
    moves_OC = torch.empty_like(gradient_OC)
    for column in range(codes_OC.shape[1]):
        bend_O = H_CC[column, column] * scales_O
        move_O = torch.where(bend_O == 0, 0.0, torch.round(-gradient_OC[:, column] / bend_O))
        code_O = (codes_OC[:, column] + move_O).clamp(0, top_code)
        moves_OC[:, column] = scales_O * (code_O - codes_OC[:, column])
        codes_OC[:, column] = code_O
        gradient_OC[:, column + 1 :] += torch.outer(moves_OC[:, column], H_CC[column, column + 1 :])
    columns.difference_OC.add_(moves_OC)
    columns.moved_O.logical_or_((step_O != 0) | (moves_OC != 0).any(dim=1))
    return moves_OC
