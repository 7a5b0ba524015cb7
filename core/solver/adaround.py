"""AdaRound (Nagel et al. 2020, arXiv 2004.10568): learns for every weight whether it is rounded down or up.

The paper fits each layer's outputs on stored inputs. For a linear that loss is tr(D H Dᵀ), D = Ŵ - W, so the Hessian
takes the inputs' place: each step uses all calibration tokens at the price of one product with H.

Soft codes are floor + h(V) with the rectified sigmoid h = clip(1.2 sigmoid(V) - 0.1, 0, 1). After a warm start a
regulariser Σ 1 - |2h-1|^β, β falling from 20 to 2, drives every h to 0 or 1.

Legend: O out_features, I in_features, R rows of one chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from core.solver import grid

STRETCH, SHIFT = 1.2, -0.1
BETA_START, BETA_END = 20.0, 2.0
# Against a loss that is 1 per weight where everything is rounded to nearest; the paper's 0.01 is for another unit.
REGULARISER = 30.0
ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON = 0.9, 0.999, 1e-8
SMALLEST_CENTRED = 0.02  # to the power of 19 still a normal float32: subnormal numbers are many times slower
CHUNK_WEIGHTS = 1 << 22  # bounds the optimizer's state to five float32 tensors of 16 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and how fast is learned. warm_start: share of the iterations before the regulariser sets in."""

    iterations: int
    learning_rate: float
    warm_start: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Some rows of a weight on their grid. share_RI: how far each weight lies above the code beneath it, 0 to 1."""

    W_RI: torch.Tensor
    scales_RI: torch.Tensor  # noqa: N815
    zeros_RI: torch.Tensor  # noqa: N815
    floor_RI: torch.Tensor  # noqa: N815
    share_RI: torch.Tensor  # noqa: N815
    top_code: int

    def difference(self, codes_RI: torch.Tensor) -> torch.Tensor:
        """Returns Ŵ - W for codes that need not be whole."""
        return self.scales_RI * (codes_RI - self.zeros_RI) - self.W_RI


def learn_rounding(
    W_OI: torch.Tensor,
    H_II: torch.Tensor,
    on_grid: tuple[torch.Tensor, torch.Tensor],
    bits: int,
    schedule: Schedule,
    on_step: Callable[[], None],
) -> torch.Tensor:
    """Returns codes, uint8 [O, I]; each is one of the two beside its weight.

    W float32; on_grid: scales and zeros per weight, float32 [O, I] each. Starts at the weights themselves and draws no
    random number. on_step is called before every step, and may raise.
    """
    rows = max(1, CHUNK_WEIGHTS // W_OI.shape[1])
    codes = []
    for W_RI, scales_RI, zeros_RI in zip(*(torch.split(part, rows) for part in (W_OI, *on_grid)), strict=True):
        exact_RI = W_RI / scales_RI + zeros_RI
        floor_RI = exact_RI.floor()
        part = _Rows(
            W_RI=W_RI,
            scales_RI=scales_RI,
            zeros_RI=zeros_RI,
            floor_RI=floor_RI,
            share_RI=exact_RI - floor_RI,
            top_code=grid.top_code(bits),
        )
        codes.append(_learn(part, H_II, schedule, on_step))
    return torch.cat(codes)


def _learn(rows: _Rows, H_II: torch.Tensor, schedule: Schedule, on_step: Callable[[], None]) -> torch.Tensor:
    weight_R1 = _loss_weight(rows, H_II)
    V_RI = torch.logit((rows.share_RI - SHIFT) / STRETCH)
    mean_RI, square_RI = torch.zeros_like(V_RI), torch.zeros_like(V_RI)
    for step in range(schedule.iterations):
        on_step()
        gradient_RI = _gradient(rows, H_II, weight_R1, V_RI, _beta(step, schedule))
        mean_RI.lerp_(gradient_RI, 1 - ADAM_BETA1)
        square_RI.lerp_(gradient_RI.square_(), 1 - ADAM_BETA2)
        spread_RI = (square_RI / (1 - ADAM_BETA2 ** (step + 1))).sqrt_().add_(ADAM_EPSILON)
        V_RI.addcdiv_(mean_RI, spread_RI, value=-schedule.learning_rate / (1 - ADAM_BETA1 ** (step + 1)))
    up_RI = _soft(torch.sigmoid(V_RI)) >= 0.5  # noqa: PLR2004 - the middle between down and up
    return (rows.floor_RI + up_RI).clamp_(0, rows.top_code).to(torch.uint8)


def _loss_weight(rows: _Rows, H_II: torch.Tensor) -> torch.Tensor:
    """Returns what makes each row's loss I where its weights are rounded to nearest, so that rows learn alike."""
    nearest_RI = rows.difference((rows.floor_RI + rows.share_RI.round()).clamp_(0, rows.top_code))
    loss_R1 = torch.einsum("ri,ri->r", nearest_RI @ H_II, nearest_RI)[:, None]
    return torch.where(loss_R1 > 0, H_II.shape[0] / loss_R1, torch.zeros_like(loss_R1))


def _gradient(
    rows: _Rows, H_II: torch.Tensor, weight_R1: torch.Tensor, V_RI: torch.Tensor, beta: float | None
) -> torch.Tensor:
    """Returns the gradient by V of the loss, with the regulariser unless beta is None."""
    sigmoid_RI = torch.sigmoid(V_RI)
    soft_RI = _soft(sigmoid_RI)
    codes_RI = rows.floor_RI + soft_RI
    inside_RI = (codes_RI >= 0) & (codes_RI <= rows.top_code)
    product_RI = rows.difference(codes_RI.clamp_(0, rows.top_code)) @ H_II
    by_soft_RI = product_RI.mul_(rows.scales_RI).mul_(2 * weight_R1).mul_(inside_RI)
    if beta is not None:
        centred_RI = soft_RI.mul_(2).sub_(1)
        slope_RI = centred_RI.abs().clamp_(min=SMALLEST_CENTRED).pow_(beta - 1)
        by_soft_RI -= slope_RI.mul_(centred_RI.sign_()).mul_(2 * REGULARISER * beta)
    clipped_RI = (sigmoid_RI < -SHIFT / STRETCH) | (sigmoid_RI > (1 - SHIFT) / STRETCH)
    return by_soft_RI.mul_(STRETCH).mul_(sigmoid_RI).mul_(1 - sigmoid_RI).masked_fill_(clipped_RI, 0)


def _soft(sigmoid_RI: torch.Tensor) -> torch.Tensor:
    return (sigmoid_RI * STRETCH + SHIFT).clamp_(0, 1)


def _beta(step: int, schedule: Schedule) -> float | None:
    start = schedule.warm_start * schedule.iterations
    if step < start:
        return None
    share = (step - start) / max(schedule.iterations - start, 1)
    return BETA_START + (BETA_END - BETA_START) * share
