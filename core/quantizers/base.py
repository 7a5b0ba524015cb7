"""The contract of every algorithm: `prepare` once per input set, `convert` once per linear.

Legend: O out_features, I in_features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import torch

from core.solver.hessian import InputStatistics
from core.weights import QuantizedWeight

Prepared = TypeVar("Prepared")


@dataclass(frozen=True, slots=True, kw_only=True)
class SolvedLinear:
    """One linear's codes and how good they are.

    loss: tr((W-Ŵ)H(W-Ŵ)ᵀ). relative_loss: loss / tr(W H Wᵀ). damp_percent: what was really added to the diagonal.
    All three and `order` are None where no Hessian was used. refined: whether refinement was kept; None where it was
    not tried. channel_alpha: how strongly input channels are scaled (AWQ); None where they cannot be. tokens:
    calibration tokens that reached the linear.
    """

    weight: QuantizedWeight
    loss: float | None = None
    relative_loss: float | None = None
    tokens: int = 0
    damp_percent: float | None = None
    order: str | None = None
    refined: bool | None = None
    channel_alpha: float | None = None
    warnings: tuple[str, ...] = ()


def _unheard() -> None:
    """Stands where nobody waits for a sign of life."""


class BaseQuantizer(ABC, Generic[Prepared]):
    """One algorithm under one config. A new algorithm is one config class and one class like this."""

    needs_calibration: ClassVar[bool]
    """Whether the walk must run the blocks and hand over statistics; otherwise `prepare` gets None."""

    true_sequential: bool = True
    """Whether a linear is solved on inputs that already carry the quantized linears before it in its block."""

    carries_float_path: bool = False
    """Whether the walk runs the float model beside the quantized one and hands its inputs over too."""

    feeds_all_experts: bool = False
    """Whether experts compute every token, for their statistics, and not only those that the router sends."""

    float_path_every: int = 2
    """Beside every how manieth batch it does so."""

    follows_stream: bool = False
    """Whether linears that write into the residual stream also get how far it is from the float model's."""

    holds_out: bool = False
    """Whether the walk keeps some batches out of the statistics, to choose by."""

    scales_channels: bool = False
    """Whether the walk asks for channel scales where an operation in front can take them over."""

    beat: Callable[[], None] = staticmethod(_unheard)
    """What a method that iterates calls before each step: it tells that work goes on, and raises where it must stop."""

    @abstractmethod
    def prepare(self, statistics: InputStatistics | None) -> Prepared:
        """Does once what all linears of one input set share.

        statistics is None for a linear that no calibration token reached. Raises NumericalError.
        """

    def serve_last(self, prepared: Prepared) -> None:
        """Is told before the last `convert` from what was prepared: that may use it up."""

    @abstractmethod
    def convert(self, W_OI: torch.Tensor, prepared: Prepared) -> SolvedLinear:
        """Quantizes one weight, float [O, I], which is not changed. Raises NumericalError."""

    def channel_exponents(
        self,
        weights: Sequence[torch.Tensor],
        statistics: InputStatistics,
        allowed: Callable[[torch.Tensor], torch.Tensor],
    ) -> tuple[torch.Tensor, float]:
        """Returns e, int64 [I], and how strong it is: `convert` then gets every weight with column j times 2^e_j.

        weights: float32 [O, I], of all linears of the set. allowed: from wanted exponents, float32 [I], to the nearest
        that can be taken over. Asked only where `scales_channels`.
        """
        raise NotImplementedError
