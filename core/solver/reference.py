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


def refine(  # noqa: PLR0913, PLR0917 - the kernel's operands
    G_OI: torch.Tensor,
    H_II: torch.Tensor,
    codes_OI: torch.Tensor,
    scales_OG: torch.Tensor,
    zeros_OG: torch.Tensor,
    members_GS: torch.Tensor,
    top_code: int,
    rounds: int,
) -> None:
    """Refines scales and codes by turns, in place; same contract as the kernel's."""
    for _ in range(rounds):
        for group, members_S in enumerate(members_GS):
            levels_OS = codes_OI[:, members_S] - zeros_OG[:, group, None]
            image_OI = levels_OS @ H_II[members_S]
            slope_O = (levels_OS * G_OI[:, members_S]).sum(dim=1)
            bend_O = (levels_OS * image_OI[:, members_S]).sum(dim=1)
            scale_O = (scales_OG[:, group] - slope_O / bend_O).half().float()
            step_O = scale_O - scales_OG[:, group]
            better_O = (bend_O > 0) & torch.isfinite(scale_O) & (scale_O * scales_OG[:, group] > 0)
            better_O &= 2 * step_O * slope_O + step_O.square() * bend_O < 0
            step_O = torch.where(better_O, step_O, 0.0)
            scales_OG[:, group] += step_O
            G_OI += step_O[:, None] * image_OI
        for group, members_S in enumerate(members_GS):
            for column in members_S.tolist():
                bend_O = H_II[column, column] * scales_OG[:, group]
                move_O = torch.where(bend_O == 0, 0.0, torch.round(-G_OI[:, column] / bend_O))
                code_O = (codes_OI[:, column] + move_O).clamp(0, top_code)
                step_O = scales_OG[:, group] * (code_O - codes_OI[:, column])
                codes_OI[:, column] = code_O
                G_OI += torch.outer(step_O, H_II[column])
