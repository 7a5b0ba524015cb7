"""What rounding one linear costs on each grid, in the metric of its inputs and weighed by what its outputs matter.

With U the factor of the damped inverse Hessian, GPTQ's loss of a row is about Σ_j (w_j - ŵ_j)²/U_jj²: what is left once
the columns to the right have made up for each rounding. Without that feedback it is (w - ŵ) H (w - ŵ)ᵀ.

Legend: O out_features, I in_features, R rows looked at, G groups, S inputs in a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from core.configs import GPTQConfig, QuantizationConfig, ScaleSearch
from core.preflight.rules import Grid
from core.solver import grid as grids
from core.solver.factor import factorize

ROWS = 128
"""Rows that stand for a linear: rounding is alike in all of them, and they are spread evenly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputMetric:
    """What all linears of one input set share. cost_I: 1/U_jj², None where no feedback makes up for a rounding."""

    hessian_II: torch.Tensor  # noqa: N815 - shapes live in names
    cost_I: torch.Tensor | None  # noqa: N815


@dataclass(frozen=True, slots=True, kw_only=True)
class GridLoss:
    """One linear on one grid. weighed: Σ over rows of weight · loss. relative: loss / tr(W H Wᵀ)."""

    weighed: float
    relative: float


def input_metric(hessian_II: torch.Tensor, config: QuantizationConfig) -> InputMetric:
    """Returns the metric of one input set; raises NumericalError as `factorize`."""
    if not isinstance(config, GPTQConfig):
        return InputMetric(hessian_II=hessian_II, cost_I=None)
    inputs_I = torch.arange(hessian_II.shape[0])
    if config.order.sorts_columns:
        inputs_I = torch.argsort(hessian_II.diagonal(), descending=True, stable=True)
    R_II = factorize(hessian_II, config.damp_percent, inputs_I).divisor.R_II
    cost_I = torch.empty_like(hessian_II.diagonal())
    cost_I[inputs_I] = R_II.diagonal().square()
    return InputMetric(hessian_II=hessian_II, cost_I=cost_I)


def grid_losses(
    W_OI: torch.Tensor,
    metric: InputMetric,
    row_weight_O: torch.Tensor,
    candidates: Sequence[Grid],
    config: QuantizationConfig,
) -> list[GridLoss]:
    """Returns the loss on each grid, scaled up from the rows that are looked at to all of them."""
    rows_R = torch.linspace(0, W_OI.shape[0] - 1, min(ROWS, W_OI.shape[0])).round().long()
    W_RI = W_OI[rows_R].float()
    weight_R, share = row_weight_O[rows_R], W_OI.shape[0] / len(rows_R)
    energy = float(((W_RI @ metric.hessian_II) * W_RI).sum())
    found = []
    for candidate in candidates:
        loss_R = _row_losses(W_RI, metric, candidate, config)
        relative = float(loss_R.sum()) / energy if energy > 0 else 0.0
        found.append(GridLoss(weighed=share * float(loss_R @ weight_R), relative=relative))
    return found


def _row_losses(W_RI: torch.Tensor, metric: InputMetric, candidate: Grid, config: QuantizationConfig) -> torch.Tensor:
    size = W_RI.shape[1] if candidate.group_size == -1 else candidate.group_size
    W_RGS = grids.in_groups(W_RI, size)
    fitted = _fit(W_RGS, metric, candidate, config)
    scales_RI, zeros_RI = (part.repeat_interleave(size, dim=1) for part in (fitted.scales_OG, fitted.zeros_OG))
    codes_RI = grids.encode(W_RI, scales_RI, zeros_RI, candidate.bits).float()
    D_RI = W_RI - scales_RI * (codes_RI - zeros_RI)
    if metric.cost_I is not None:
        return D_RI.square() @ metric.cost_I
    return ((D_RI @ metric.hessian_II) * D_RI).sum(dim=1)


def _fit(W_RGS: torch.Tensor, metric: InputMetric, candidate: Grid, config: QuantizationConfig) -> grids.Grid:
    bits, sym = candidate.bits, candidate.sym
    if not isinstance(config, GPTQConfig) or config.scale_search is ScaleSearch.MINMAX or metric.cost_I is None:
        return grids.minmax_grid(W_RGS, bits=bits, sym=sym)
    cost_I = metric.cost_I if config.scale_search is ScaleSearch.CURVATURE else metric.hessian_II.diagonal()
    cost_GS = (cost_I / cost_I.mean()).reshape(-1, W_RGS.shape[2]).contiguous()
    return grids.searched_grid(W_RGS, cost_GS, bits=bits, sym=sym, signed=config.signed_scales)
