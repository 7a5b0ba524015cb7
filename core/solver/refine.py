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

from core.blocking import UPDATE_COLUMNS
from core.kernels.columns import RefinedColumns
from core.profile import Work, span
from core.solver import grid, kernels
from core.solver.multiplication import add_product, times_transposed
from core.weights import QuantizedWeight


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

    def group(self, number: int, moved_O: torch.Tensor) -> RefinedColumns:
        """Returns a group's columns, and with them the flags of rows that they have changed."""
        size = self.codes_OI.shape[1] // self.scales_OG.shape[1]
        inputs = slice(number * size, (number + 1) * size)
        return RefinedColumns(
            codes_OC=self.codes_OI[:, inputs],
            difference_OC=self.difference_OI[:, inputs],
            zeros_O=self.zeros_OG[:, number],
            scales_O=self.scales_OG[:, number],
            moved_O=moved_O,
        )


def _round(rows: _Rows, H_II: torch.Tensor, top_code: int, *, move_zeros: bool) -> torch.Tensor:
    """Goes once over all groups; returns which rows changed."""
    groups = rows.scales_OG.shape[1]
    size = H_II.shape[0] // groups
    moved_O = torch.zeros(rows.codes_OI.shape[0], dtype=torch.bool, device=H_II.device)
    for group in range(groups):
        inputs = slice(group * size, (group + 1) * size)
        columns, H_SS = rows.group(group, moved_O), H_II[inputs, inputs]
        gradient_OS = times_transposed(rows.difference_OI, H_II[inputs], Work.REFINE)
        if not move_zeros:
            _refine_group(columns, gradient_OS, H_SS, top_code)
            continue
        before_OS = columns.difference_OC.clone()
        _refine_group(columns, gradient_OS.clone(), H_SS, top_code)
        add_product(gradient_OS, columns.difference_OC - before_OS, H_SS, Work.REFINE)
        step_OS = _zero_step(rows, group, gradient_OS, H_SS, top_code)
        columns.difference_OC.add_(step_OS)
        moved_O |= (step_OS != 0).any(dim=1)
    return moved_O


def _refine_group(columns: RefinedColumns, gradient_OS: torch.Tensor, H_SS: torch.Tensor, top_code: int) -> None:
    """Moves a group's scale, then its codes; gradient_OS is overwritten."""
    size = H_SS.shape[0]
    levels_OS = columns.levels_OC
    image_OS = times_transposed(levels_OS, H_SS, Work.REFINE)
    step_O = _scale_step(*kernels.slopes_and_bends(levels_OS, gradient_OS, image_OS), columns.scales_O)
    columns.scales_O.add_(step_O)
    for start in range(0, size, UPDATE_COLUMNS):
        part = slice(start, min(start + UPDATE_COLUMNS, size))
        moves_OC = kernels.refine_codes(
            columns.part(part), gradient_OS[:, part], image_OS[:, part], step_O, H_SS[part, part], top_code
        )
        if part.stop < size:
            add_product(gradient_OS[:, part.stop :], moves_OC, H_SS[part.stop :, part], Work.REFINE)


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


def _scale_step(slope_O: torch.Tensor, bend_O: torch.Tensor, scales_O: torch.Tensor) -> torch.Tensor:
    """Returns what takes each scale to its least-squares value, 0 where that is no gain.

    slope_O: of the loss by the scale, half of it. bend_O: of that by the scale once more.
    """
    scale_O = (scales_O - slope_O / bend_O).half().float()
    step_O = scale_O - scales_O
    better_O = (bend_O > 0) & torch.isfinite(scale_O) & (scale_O * scales_O > 0)
    better_O &= 2 * step_O * slope_O + step_O.square() * bend_O < 0
    return torch.where(better_O, step_O, 0.0)
