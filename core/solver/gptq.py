"""GPTQ (Frantar et al. 2022, arXiv 2210.17323): codes for weights that share one input set, columns solved in order.

With RRᵀ the damped Hessian, R upper, the damped loss is ‖(W-Ŵ)R‖², and what a column can still do about the columns
before it is known from their differences alone. The Hessian's inverse, which the paper's form of the algorithm goes by,
is not needed (Chee et al. 2023, arXiv 2307.13304, theorem 6, show that both are the same). It is in a stretch of
columns: with U = R⁻¹ of the stretch's square, column j's residual e_j = (w_j - w_hat_j) / U_jj is pushed onto the
columns to its right, w_k -= e_j U_jk. The damped loss is then exactly Σ e_j².

Legend: O out_features, I in_features, G groups, S inputs in a group, C columns of one update. `column` counts in the
order of solving, `input` in the order of the checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from core.blocking import STRETCH_COLUMNS, UPDATE_COLUMNS
from core.configs import GPTQConfig, Order, ScaleSearch
from core.kernels.halves import Half, Halves
from core.profile import Work, span
from core.solver import grid, kernels
from core.solver.factor import DampedFactor, factorize
from core.solver.multiplication import add_product, multiply_into, times_elementwise, times_transposed
from core.weights import QuantizedWeight

_UPPER_TRANSPOSED = Halves(right=Half.LOWER)


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveOrder:
    """Which input is solved when, and in which group it lies.

    inputs_I: input of each column, int64. group_I: group of each column, int64; without fixed scales the columns of a
    group follow one another.
    """

    inputs_I: torch.Tensor  # noqa: N815 - shapes live in names
    group_I: torch.Tensor  # noqa: N815
    group_size: int

    @property
    def g_idx_I(self) -> torch.Tensor:  # noqa: N802 - shapes live in names
        """Returns the group of each input, int32, in the checkpoint's order."""
        g_idx_I = torch.empty_like(self.group_I)
        g_idx_I[self.inputs_I] = self.group_I
        return g_idx_I.to(torch.int32)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedSet:
    """What all linears of one input set share: the order, the factor in that order, and inverses of its squares.

    stretches: the first column of each and the inverse of R's square there, float32 [C, C], upper. They are groups
    where scales are taken from live weights. diagonal_I: diag H in the order of solving.
    """

    order: SolveOrder
    factor: DampedFactor
    stretches: tuple[tuple[int, torch.Tensor], ...]
    diagonal_I: torch.Tensor  # noqa: N815 - shapes live in names


@dataclass(frozen=True, slots=True, kw_only=True)
class GPTQSolution:
    """weight: codes in the checkpoint's order. damped_loss: Σ e², equal to tr((W-Ŵ)(H+λI)(W-Ŵ)ᵀ)."""

    weight: QuantizedWeight
    damped_loss: float


def prepare_set(H_II: torch.Tensor, config: GPTQConfig) -> PreparedSet:
    """Chooses the order and factorizes once for all linears that share H; raises NumericalError as `factorize`."""
    order = solve_order(H_II.diagonal(), config.order, config.group_size)
    inputs_I = order.inputs_I
    factor = factorize(H_II, config.damp_percent, inputs_I)
    with span(Work.FACTORIZATION):
        stretches = tuple(
            (start, factor.divisor.inverse(start, stop)) for start, stop in _stretches(order, factor, config)
        )
    return PreparedSet(order=order, factor=factor, stretches=stretches, diagonal_I=H_II.diagonal()[inputs_I])


def _stretches(order: SolveOrder, factor: DampedFactor, config: GPTQConfig) -> list[tuple[int, int]]:
    if config.order.fixes_groups:
        return factor.divisor.squares(STRETCH_COLUMNS)
    size = order.group_size
    return [(start, start + size) for start in range(0, len(order.inputs_I), size)]


def solve_order(diagonal_I: torch.Tensor, order: Order, group_size: int) -> SolveOrder:
    """Returns the order of columns; ties in the diagonal keep the checkpoint's order."""
    width = diagonal_I.shape[0]
    size = width if group_size == -1 else group_size
    natural_I = torch.arange(width, device=diagonal_I.device)
    if order is Order.ACT_GROUP_AWARE:
        inputs_I = _by_groups(diagonal_I, size)
    else:
        inputs_I = torch.argsort(diagonal_I, descending=True, stable=True) if order.sorts_columns else natural_I
    layout_I = inputs_I if order.keeps_layout else natural_I
    return SolveOrder(inputs_I=inputs_I, group_I=layout_I // size, group_size=size)


def _by_groups(diagonal_I: torch.Tensor, size: int) -> torch.Tensor:
    """Returns the inputs group by group: groups by falling mean of the diagonal, inputs in each by the diagonal."""
    diagonal_GS = diagonal_I.view(-1, size)
    groups_G = torch.argsort(diagonal_GS.mean(dim=1), descending=True, stable=True)
    within_GS = torch.argsort(diagonal_GS, dim=1, descending=True, stable=True)
    first_G1 = torch.arange(len(groups_G), device=diagonal_I.device)[:, None] * size
    return (within_GS + first_G1)[groups_G].reshape(-1)


@span(Work.SOLVE)
def solve(
    W_OI: torch.Tensor, prepared: PreparedSet, config: GPTQConfig, *, update: int = UPDATE_COLUMNS
) -> GPTQSolution:
    """Solves one weight, float32 [O, I], not changed; `update` bounds the columns between two matrix products.

    The result does not depend on `update` (up to float32 rounding): a group's scales are taken from weights to which
    every earlier column's residual has been applied.
    """
    solver = _ColumnSolver(W_OI, prepared, config)
    for first, inverse_CC in prepared.stretches:
        solver.advance(first, inverse_CC, update)
    return solver.solution()


class _ColumnSolver:
    """The state of one solve: live weights, grid, codes, all in the order of solving.

    Solved columns leave W - Ŵ where their weights were. Columns to the right ask for it when they are due, so that each
    is written once and not after every update to its left.
    """

    def __init__(self, W_OI: torch.Tensor, prepared: PreparedSet, config: GPTQConfig) -> None:
        self._config = config
        self._order = prepared.order
        self._R_II = prepared.factor.divisor.R_II
        self._damped_loss = 0.0
        self._cost_I = _costs(prepared, config.scale_search)
        self._W_OI = torch.index_select(W_OI.float(), 1, self._order.inputs_I)
        self._codes_OI = torch.empty(self._W_OI.shape, dtype=torch.uint8, device=W_OI.device)
        groups = self._W_OI.shape[1] // self._order.group_size
        shape = (self._W_OI.shape[0], groups)
        self._scales_OG = torch.empty(shape, device=W_OI.device)
        self._zeros_OG = torch.empty(shape, device=W_OI.device)
        if config.order.fixes_groups:
            self._fit_all_groups(W_OI.float())

    def advance(self, first: int, inverse_CC: torch.Tensor, update: int) -> None:
        """Solves a stretch of columns from `first` on, some at a time; inverse_CC: of R's square there."""
        stop = first + len(inverse_CC)
        W_OC = self._W_OI[:, first:stop]
        before_OC = times_transposed(self._W_OI[:, :first], self._R_II[:first, first:stop].T, Work.SOLVE)
        if first:
            add_product(W_OC, before_OC, inverse_CC.T, Work.SOLVE, halves=_UPPER_TRANSPOSED)
        if not self._config.order.fixes_groups:
            self._fit_live_group(first)
        residuals_OC = torch.empty_like(before_OC)
        for start in range(0, stop - first, update):
            part = slice(start, min(start + update, stop - first))
            residuals_OC[:, part] = self._update(first, part, inverse_CC, residuals_OC[:, :start])
        self._damped_loss += times_elementwise(residuals_OC, residuals_OC)
        if stop < self._W_OI.shape[1]:
            residuals_OC.sub_(before_OC)
            multiply_into(W_OC, residuals_OC, inverse_CC.T, Work.SOLVE, halves=_UPPER_TRANSPOSED)

    def _update(self, first: int, part: slice, inverse_CC: torch.Tensor, earlier_OC: torch.Tensor) -> torch.Tensor:
        """Solves part of the stretch that begins at `first`; returns its residuals. earlier_OC: those before."""
        columns = slice(first + part.start, first + part.stop)
        W_OC = self._W_OI[:, columns].contiguous()
        if part.start:
            add_product(W_OC, earlier_OC, inverse_CC[: part.start, part].T, Work.SOLVE, factor=-1.0)
        group_C = self._order.group_I[columns]
        self._codes_OI[:, columns], residuals_OC = kernels.solve_columns(
            W_OC,
            inverse_CC[part, part].contiguous(),
            torch.index_select(self._scales_OG, 1, group_C),
            torch.index_select(self._zeros_OG, 1, group_C),
            grid.top_code(self._config.bits),
        )
        return residuals_OC

    def solution(self) -> GPTQSolution:
        """Returns the codes in the checkpoint's order."""
        codes_OI = torch.empty_like(self._codes_OI)
        codes_OI[:, self._order.inputs_I] = self._codes_OI
        weight = QuantizedWeight(
            codes_OI=codes_OI,
            scales_OG=self._scales_OG.half(),
            zeros_OG=self._zeros_OG.to(torch.uint8),
            g_idx_I=self._order.g_idx_I,
            bits=self._config.bits,
            group_size=self._config.group_size,
            sym=self._config.sym,
        )
        return GPTQSolution(weight=weight, damped_loss=self._damped_loss)

    def _fit_all_groups(self, W_OI: torch.Tensor) -> None:
        """Fits every group before the first column, in the checkpoint's layout, as W has it."""
        size = self._order.group_size
        by_input_I = torch.argsort(self._order.inputs_I)
        fitted = self._fit(grid.in_groups(W_OI, size), self._cost_I[by_input_I].view(-1, size))
        self._scales_OG, self._zeros_OG = fitted.scales_OG, fitted.zeros_OG

    def _fit_live_group(self, start: int) -> None:
        """Fits the group whose first column is `start`."""
        columns = slice(start, start + self._order.group_size)
        group = int(self._order.group_I[start])
        fitted = self._fit(self._W_OI[:, None, columns], self._cost_I[None, columns])
        self._scales_OG[:, group] = fitted.scales_OG[:, 0]
        self._zeros_OG[:, group] = fitted.zeros_OG[:, 0]

    def _fit(self, W_OGS: torch.Tensor, cost_GS: torch.Tensor) -> grid.Grid:
        bits, sym = self._config.bits, self._config.sym
        if self._config.scale_search is ScaleSearch.MINMAX:
            return grid.minmax_grid(W_OGS, bits=bits, sym=sym)
        return grid.searched_grid(W_OGS, cost_GS, bits=bits, sym=sym, signed=self._config.signed_scales)


def _costs(prepared: PreparedSet, search: ScaleSearch) -> torch.Tensor:
    """Returns c_j per column, scaled to mean 1 so that float32 sums keep their digits."""
    if search is ScaleSearch.CURVATURE:
        cost_I = prepared.factor.divisor.R_II.diagonal().square()
    else:
        cost_I = prepared.diagonal_I.clone()
    return cost_I / cost_I.mean().clamp(min=torch.finfo(torch.float32).tiny)
