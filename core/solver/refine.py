"""Improves a solved weight: least-squares scales with the codes fixed, then codes one by one with the scales fixed.

Then a zero of an asymmetric grid may move by one, which shifts the levels that its group can take. Each of them lowers
tr((Ŵ-T)(H+λI)(Ŵ-T)ᵀ), the loss that the column solve lowers greedily, so that no round raises it by more than what
rounding the gradient to bfloat16 hides. Scales stay on float16 values and keep their signs, the zeros of symmetric
grids stay as they are.

A move changes the loss's gradient (Ŵ-T)(H+λI) at every input, but only the group at hand asks for it: there it is a
matrix product, kept true column by column while the group's scale and codes move. Rounds go forth and back by turns, as
symmetric over-relaxation does: what the inputs behind add to the gradient is what those ahead add when the next round
comes back, so that a round after the first takes half a product with H (Niethammer 1964; Conrad, Wallach 1977).

Legend: O out_features, I in_features, G groups, S inputs in a group, B inputs in a band of whole groups, C columns of
one kernel call.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from core.blocking import UPDATE_COLUMNS
from core.kernels.columns import RefinedColumns
from core.profile import Work, span
from core.solver import grid, kernels
from core.solver.multiplication import add_product, multiply_into, rounded, times_transposed
from core.weights import QuantizedWeight

# Inputs whose gradient is one product: whole groups, of so many inputs at least, which the kernels take at once.
BAND_COLUMNS = 64


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
    difference_OI = weight.dequantize().sub_(target_OI)[:, inputs]
    every = rows = _Rows(
        difference_OI=difference_OI,
        rounded_OI=rounded(difference_OI),
        ahead_OI=torch.empty_like(difference_OI),
        codes_OI=codes_OI[:, inputs],
        scales_OG=weight.scales_OG.float(),
        zeros_OG=weight.zeros_OG.float(),
    )
    sweeps = _Sweeps(damped_II, rows.scales_OG.shape[1], grid.top_code(weight.bits), move_zeros=not weight.sym)
    sweeps.look_ahead(rows)
    open_O: torch.Tensor | None = None
    for number in range(rounds):
        moved_O = sweeps.go(rows, forth=number % 2 == 0)
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
    """Rows that are refined, inputs sorted by group; changed in place.

    difference_OI: Ŵ - T, float32, and rounded_OI the same as a left side of products. ahead_OI: what the bands beyond
    an input add to the gradient there, seen in the direction of the next round. The others are float32.
    """

    difference_OI: torch.Tensor  # noqa: N815 - shapes live in names
    rounded_OI: torch.Tensor  # noqa: N815
    ahead_OI: torch.Tensor  # noqa: N815
    codes_OI: torch.Tensor  # noqa: N815
    scales_OG: torch.Tensor  # noqa: N815
    zeros_OG: torch.Tensor  # noqa: N815

    def put(self, rows_O: torch.Tensor, taken: _Rows) -> None:
        """Puts back what is wanted in the end of what `take` took."""
        self.codes_OI[rows_O], self.scales_OG[rows_O], self.zeros_OG[rows_O] = (
            taken.codes_OI,
            taken.scales_OG,
            taken.zeros_OG,
        )

    def take(self, rows_O: torch.Tensor) -> _Rows:
        difference_OI = self.difference_OI[rows_O]
        return _Rows(
            difference_OI=difference_OI,
            rounded_OI=rounded(difference_OI),
            ahead_OI=self.ahead_OI[rows_O],
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


class _Sweeps:
    """Rounds of refinement under one Hessian, each of which goes once over all groups."""

    def __init__(self, H_II: torch.Tensor, groups: int, top_code: int, *, move_zeros: bool) -> None:
        self._H_II = H_II
        self._size = H_II.shape[0] // groups
        self._top_code = top_code
        self._move_zeros = move_zeros
        width = -(-BAND_COLUMNS // self._size) * self._size
        self._bands = [slice(start, min(start + width, len(H_II))) for start in range(0, len(H_II), width)]

    def look_ahead(self, rows: _Rows) -> None:
        """Makes rows ready for a round that goes forth."""
        for band in self._bands:
            later = slice(band.stop, None)
            multiply_into(rows.ahead_OI[:, band], rows.rounded_OI[:, later], self._H_II[band, later], Work.REFINE)

    def go(self, rows: _Rows, *, forth: bool) -> torch.Tensor:
        """Goes over all groups from the first one on, or back from the last; returns which rows changed."""
        moved_O = torch.zeros(rows.codes_OI.shape[0], dtype=torch.bool, device=self._H_II.device)
        for band in self._bands if forth else reversed(self._bands):
            behind = slice(0, band.start) if forth else slice(band.stop, len(self._H_II))
            behind_OB = times_transposed(rows.rounded_OI[:, behind], self._H_II[band, behind], Work.REFINE)
            gradient_OB = behind_OB + rows.ahead_OI[:, band]
            rows.ahead_OI[:, band] = behind_OB
            groups = range(band.start // self._size, band.stop // self._size)
            for group in groups if forth else reversed(groups):
                self._refine_in(band, group, rows, gradient_OB, moved_O)
            rows.rounded_OI[:, band] = rows.difference_OI[:, band]
        return moved_O

    def _refine_in(
        self, band: slice, group: int, rows: _Rows, gradient_OB: torch.Tensor, moved_O: torch.Tensor
    ) -> None:
        """Refines a group of a band; gradient_OB is what lies outside the band adds, and is overwritten there."""
        inputs = slice(group * self._size, (group + 1) * self._size)
        columns, H_SS = rows.group(group, moved_O), self._H_II[inputs, inputs]
        gradient_OS = gradient_OB[:, inputs.start - band.start : inputs.stop - band.start]
        add_product(gradient_OS, rows.difference_OI[:, band], self._H_II[inputs, band], Work.REFINE)
        if not self._move_zeros:
            _refine_group(columns, gradient_OS, H_SS, self._top_code)
            return
        before_OS = columns.difference_OC.clone()
        _refine_group(columns, gradient_OS.clone(), H_SS, self._top_code)
        add_product(gradient_OS, columns.difference_OC - before_OS, H_SS, Work.REFINE)
        step_OS = _zero_step(rows, group, gradient_OS, H_SS, self._top_code)
        columns.difference_OC.add_(step_OS)
        moved_O |= (step_OS != 0).any(dim=1)


def _refine_group(columns: RefinedColumns, gradient_OS: torch.Tensor, H_SS: torch.Tensor, top_code: int) -> None:
    """Moves a group's scale, then its codes; gradient_OS is overwritten."""
    size = H_SS.shape[0]
    image_OS = times_transposed(columns.levels_OC, H_SS, Work.REFINE)
    step_O = kernels.step_scales(columns, gradient_OS, image_OS)
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
