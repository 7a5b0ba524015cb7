"""GPTQ (Frantar et al. 2022, arXiv 2210.17323): codes for weights that share one input set, columns solved in order.

With U the upper Cholesky factor of the damped inverse Hessian, column j's residual e_j = (w_j - w_hat_j) / U_jj is
pushed onto the columns to its right, w_k -= e_j U_jk. The damped loss is then exactly Σ e_j².

Legend: O out_features, I in_features, G groups, S inputs in a group, C columns of one update. `column` counts in the
order of solving, `input` in the order of the checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from core.blocking import UPDATE_COLUMNS
from core.configs import GPTQConfig, Order, ScaleSearch
from core.profile import Work, span
from core.solver import grid, kernels
from core.solver.factor import InverseFactor, factorize
from core.solver.multiplication import add_product, times_elementwise
from core.weights import QuantizedWeight


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
    """What all linears of one input set share: the order and the factor in that order."""

    order: SolveOrder
    factor: InverseFactor
    diagonal_I: torch.Tensor  # noqa: N815 - diag H in the order of solving


@dataclass(frozen=True, slots=True, kw_only=True)
class GPTQSolution:
    """weight: codes in the checkpoint's order. damped_loss: Σ e², equal to tr((W-Ŵ)(H+λI)(W-Ŵ)ᵀ)."""

    weight: QuantizedWeight
    damped_loss: float


def prepare_set(H_II: torch.Tensor, config: GPTQConfig) -> PreparedSet:
    """Chooses the order and factorizes once for all linears that share H; raises NumericalError as `factorize`."""
    order = solve_order(H_II.diagonal(), config.order, config.group_size)
    inputs_I = order.inputs_I
    return PreparedSet(
        order=order,
        factor=factorize(H_II, config.damp_percent, inputs_I),
        diagonal_I=H_II.diagonal()[inputs_I],
    )


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
    width = prepared.order.inputs_I.shape[0]
    stretch = width if config.order.fixes_groups else prepared.order.group_size
    for first in range(0, width, stretch):
        solver.begin(first, min(first + stretch, width))
        for start in range(first, min(first + stretch, width), update):
            solver.advance(first, start, min(start + update, first + stretch, width))
    return solver.solution()


class _ColumnSolver:
    """The state of one solve: live weights, grid, codes, all in the order of solving.

    Solved columns leave their residuals where their weights were; columns to the right fetch them when they are due, so
    that each is written once and not after every update to its left.
    """

    def __init__(self, W_OI: torch.Tensor, prepared: PreparedSet, config: GPTQConfig) -> None:
        self._config = config
        self._order = prepared.order
        self._U_II = prepared.factor.U_II
        self._cost_I = _costs(prepared, config.scale_search)
        self._W_OI = torch.index_select(W_OI.float(), 1, self._order.inputs_I)
        self._codes_OI = torch.empty(self._W_OI.shape, dtype=torch.uint8, device=W_OI.device)
        groups = self._W_OI.shape[1] // self._order.group_size
        shape = (self._W_OI.shape[0], groups)
        self._scales_OG = torch.empty(shape, device=W_OI.device)
        self._zeros_OG = torch.empty(shape, device=W_OI.device)
        if config.order.fixes_groups:
            self._fit_all_groups(W_OI.float())

    def begin(self, first: int, stop: int) -> None:
        """Makes columns ready that get their scales together: from the first one's weights, unless all have theirs."""
        self._fetch(0, first, stop)
        if not self._config.order.fixes_groups:
            self._fit_live_group(first)

    def advance(self, first: int, start: int, stop: int) -> None:
        """Solves columns start to stop, which `begin` made ready together with those from `first` on."""
        self._fetch(first, start, stop)
        group_C = self._order.group_I[start:stop]
        self._codes_OI[:, start:stop], self._W_OI[:, start:stop] = kernels.solve_columns(
            self._W_OI[:, start:stop].contiguous(),
            self._U_II[start:stop, start:stop].contiguous(),
            torch.index_select(self._scales_OG, 1, group_C),
            torch.index_select(self._zeros_OG, 1, group_C),
            grid.top_code(self._config.bits),
        )

    def _fetch(self, first: int, start: int, stop: int) -> None:
        """Applies the residuals of columns first to start to those from there to stop."""
        residuals_OC, U_CJ = self._W_OI[:, first:start], self._U_II[first:start, start:stop]
        add_product(self._W_OI[:, start:stop], residuals_OC, U_CJ.T, Work.SOLVE, factor=-1.0)

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
        return GPTQSolution(weight=weight, damped_loss=times_elementwise(self._W_OI, self._W_OI))

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
        cost_I = prepared.factor.U_II.diagonal().square().reciprocal()
    else:
        cost_I = prepared.diagonal_I.clone()
    return cost_I / cost_I.mean().clamp(min=torch.finfo(torch.float32).tiny)
