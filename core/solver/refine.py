"""Improves a solved weight: least-squares scales with the codes fixed, then codes one by one with the scales fixed.

Then a zero of an asymmetric grid may move by one, which shifts the levels that its group can take. Each of them lowers
tr((Ŵ-T)(H+λI)(Ŵ-T)ᵀ), the loss that the column solve lowers greedily, so no round can raise it. Scales stay on float16
values and keep their signs, the zeros of symmetric grids stay as they are.

A move changes the loss's gradient (Ŵ-T)(H+λI) at every input, but only the group at hand asks for it: there it is one
matrix product, kept true column by column while the group's scale and codes move.

Legend: O out_features, I in_features, G groups, S inputs in a group, C columns of one kernel call.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from core.matmul import times_transposed
from core.profile import Work, span
from core.solver import grid, kernels
from core.weights import QuantizedWeight

# Columns between two products inside a group: a row's gradient and the curvature of so many stay in the nearest cache.
UPDATE_COLUMNS = 128


@span(Work.REFINE)
def refine(
    weight: QuantizedWeight, target_OI: torch.Tensor, H_II: torch.Tensor, *, damp: float, rounds: int
) -> QuantizedWeight:
    """Returns the weight after some rounds; target float32 [O, I], H symmetric, damp is the λ that is added to it.

    Once most rows have nothing left to improve, the next rounds leave those alone. H is as before when this returns.
    """
    diagonal_I = H_II.diagonal().clone()
    H_II.diagonal().add_(damp)
    try:
        return _refined(weight, target_OI, H_II, rounds)
    finally:
        H_II.diagonal().copy_(diagonal_I)


def _refined(weight: QuantizedWeight, target_OI: torch.Tensor, damped_II: torch.Tensor, rounds: int) -> QuantizedWeight:
    inputs: slice | torch.Tensor = slice(None)
    if not weight.monotone_groups:
        inputs = torch.argsort(weight.g_idx_I, stable=True)
        damped_II = damped_II[inputs][:, inputs]
    codes_OI = weight.codes_OI.float()
    every = rows = _Rows(
        difference_OI=(weight.dequantize() - target_OI)[:, inputs],
        codes_OI=codes_OI[:, inputs],
        scales_OG=weight.scales_OG.float(),
        zeros_OG=weight.zeros_OG.float(),
    )
    open_O: torch.Tensor | None = None
    for _ in range(rounds):
        moved_O = _round(rows, damped_II, grid.top_code(weight.bits), move_zeros=not weight.sym)
        if open_O is not None:
            every.put(open_O, rows)
        if not bool(moved_O.any()):
            break
        if int(moved_O.sum()) < len(moved_O) // 2:
            open_O = torch.nonzero(moved_O)[:, 0] if open_O is None else open_O[moved_O]
            rows = rows.take(moved_O)
    codes_OI[:, inputs] = every.codes_OI
    return replace(
        weight,
        codes_OI=codes_OI.to(torch.uint8),
        scales_OG=every.scales_OG.half(),
        zeros_OG=every.zeros_OG.to(torch.uint8),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Rows that are refined, inputs sorted by group, all float32. difference_OI = Ŵ - T; changed in place."""

    difference_OI: torch.Tensor  # noqa: N815 - shapes live in names
    codes_OI: torch.Tensor  # noqa: N815
    scales_OG: torch.Tensor  # noqa: N815
    zeros_OG: torch.Tensor  # noqa: N815

    def put(self, rows_O: torch.Tensor, taken: _Rows) -> None:
        """Puts back what `take` took, but for the difference."""
        self.codes_OI[rows_O], self.scales_OG[rows_O], self.zeros_OG[rows_O] = (
            taken.codes_OI,
            taken.scales_OG,
            taken.zeros_OG,
        )

    def take(self, rows_O: torch.Tensor) -> _Rows:
        return _Rows(
            difference_OI=self.difference_OI[rows_O],
            codes_OI=self.codes_OI[rows_O],
            scales_OG=self.scales_OG[rows_O],
            zeros_OG=self.zeros_OG[rows_O],
        )


def _round(rows: _Rows, H_II: torch.Tensor, top_code: int, *, move_zeros: bool) -> torch.Tensor:
    """Goes once over all groups; returns which rows changed."""
    groups = rows.scales_OG.shape[1]
    size = H_II.shape[0] // groups
    moved_O = torch.zeros(rows.codes_OI.shape[0], dtype=torch.bool, device=H_II.device)
    for group in range(groups):
        inputs = slice(group * size, (group + 1) * size)
        gradient_OS = times_transposed(rows.difference_OI, H_II[inputs], Work.REFINE)
        moving_OS = gradient_OS.clone() if move_zeros else gradient_OS
        step_OS = _refine_group(rows, group, moving_OS, H_II[inputs, inputs], top_code)
        if move_zeros:
            gradient_OS += times_transposed(step_OS, H_II[inputs, inputs], Work.REFINE)
            step_OS += _zero_step(rows, group, gradient_OS, H_II[inputs, inputs], top_code)
        rows.difference_OI[:, inputs] += step_OS
        moved_O |= (step_OS != 0).any(dim=1)
    return moved_O


def _refine_group(
    rows: _Rows, group: int, gradient_OS: torch.Tensor, H_SS: torch.Tensor, top_code: int
) -> torch.Tensor:
    """Moves a group's scale, then its codes; returns what that added to its weights, float32 [O, S].

    gradient_OS is overwritten.
    """
    size = H_SS.shape[0]
    codes_OS = rows.codes_OI[:, group * size : (group + 1) * size]
    levels_OS = codes_OS - rows.zeros_OG[:, group, None]
    image_OS = times_transposed(levels_OS, H_SS, Work.REFINE)
    step_O = _scale_step(levels_OS, gradient_OS, image_OS, rows.scales_OG[:, group])
    rows.scales_OG[:, group] += step_O
    gradient_OS += step_O[:, None] * image_OS
    step_OS = step_O[:, None] * levels_OS
    scales_O = rows.scales_OG[:, group].contiguous()
    for start in range(0, size, UPDATE_COLUMNS):
        stop = min(start + UPDATE_COLUMNS, size)
        codes_OC = codes_OS[:, start:stop].contiguous()
        moves_OC = kernels.refine_codes(
            gradient_OS[:, start:stop].contiguous(),
            H_SS[start:stop, start:stop].contiguous(),
            codes_OC,
            scales_O,
            top_code,
        )
        codes_OS[:, start:stop] = codes_OC
        step_OS[:, start:stop] += moves_OC
        if stop < size:
            gradient_OS[:, stop:] += times_transposed(moves_OC, H_SS[stop:, start:stop], Work.REFINE)
    return step_OS


def _zero_step(rows: _Rows, group: int, gradient_OS: torch.Tensor, H_SS: torch.Tensor, top_code: int) -> torch.Tensor:
    """Moves a group's zero by one where that is a gain; returns what that added to its weights, float32 [O, S].

    Levels stay but at the window's ends: one that falls out comes in, one at the end that opens goes out by one where
    its own gradient asks for it.
    """
    codes_OS = rows.codes_OI[:, group * H_SS.shape[0] : (group + 1) * H_SS.shape[0]]
    scales_O1, zeros_O1 = rows.scales_OG[:, group, None], rows.zeros_OG[:, group, None]
    bend_OS = H_SS.diagonal() * scales_O1
    wanted_OS = torch.where(bend_OS == 0, 0.0, torch.round(-gradient_OS / bend_OS))
    least_O1 = torch.zeros_like(zeros_O1)
    moved_OS, best_OS, best_O1 = torch.zeros_like(codes_OS), codes_OS.clone(), zeros_O1.clone()
    for shift in (-1.0, 1.0):
        goes_out_OS = (codes_OS == (top_code if shift < 0 else 0)) & (wanted_OS * shift < 0)
        tried_OS = torch.where(goes_out_OS, codes_OS, codes_OS + shift).clamp(0, top_code)
        step_OS = scales_O1 * (tried_OS - shift - codes_OS)
        image_OS = times_transposed(step_OS, H_SS, Work.REFINE)
        change_O1 = (step_OS * (2 * gradient_OS + image_OS)).sum(dim=1, keepdim=True)
        better_O1 = (change_O1 < least_O1) & (zeros_O1 + shift >= 0) & (zeros_O1 + shift <= top_code)
        least_O1 = torch.where(better_O1, change_O1, least_O1)
        moved_OS = torch.where(better_O1, step_OS, moved_OS)
        best_OS = torch.where(better_O1, tried_OS, best_OS)
        best_O1 = torch.where(better_O1, zeros_O1 + shift, best_O1)
    codes_OS.copy_(best_OS)
    zeros_O1.copy_(best_O1)
    return moved_OS


def _scale_step(
    levels_OS: torch.Tensor, gradient_OS: torch.Tensor, image_OS: torch.Tensor, scales_O: torch.Tensor
) -> torch.Tensor:
    """Returns what takes each scale to its least-squares value, 0 where that is no gain; image_OS = levels · H."""
    slope_O = (levels_OS * gradient_OS).sum(dim=1)
    bend_O = (levels_OS * image_OS).sum(dim=1)
    scale_O = (scales_O - slope_O / bend_O).half().float()
    step_O = scale_O - scales_O
    better_O = (bend_O > 0) & torch.isfinite(scale_O) & (scale_O * scales_O > 0)
    better_O &= 2 * step_O * slope_O + step_O.square() * bend_O < 0
    return torch.where(better_O, step_O, 0.0)
