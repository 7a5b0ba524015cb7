"""AWQ behind the common contract: rounding to nearest on clipped ranges, of weights whose channels the walk scales."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch

from core.configs import AWQConfig
from core.quantizers.base import BaseQuantizer, SolvedLinear
from core.quantizers.judged import STARVED, judged
from core.solver.channels import search_exponents
from core.solver.clip import best_rows, clipped_grid
from core.solver.hessian import InputStatistics
from core.solver.rtn import round_on, round_to_nearest
from core.weights import QuantizedWeight


class AWQQuantizer(BaseQuantizer[InputStatistics | None]):
    """Where no operation in front can take channel scales over, what is left is the clipping."""

    needs_calibration: ClassVar[bool] = AWQConfig.needs_calibration

    def __init__(self, config: AWQConfig) -> None:
        self._config = config
        self.scales_channels = config.channel_steps > 0

    def channel_exponents(
        self,
        weights: Sequence[torch.Tensor],
        statistics: InputStatistics,
        allowed: Callable[[torch.Tensor], torch.Tensor],
    ) -> tuple[torch.Tensor, float]:
        """Searches the channel scales of all linears behind one input."""

        def rounded(W_OI: torch.Tensor) -> torch.Tensor:
            self.beat()
            return self._rounded(W_OI).dequantize()

        return search_exponents(weights, statistics.hessian_II, self._config.channel_steps, allowed, rounded)

    def prepare(self, statistics: InputStatistics | None) -> InputStatistics | None:
        """Has nothing to prepare; returns None where no token arrived."""
        return statistics if statistics is not None and statistics.tokens else None

    def convert(self, W_OI: torch.Tensor, prepared: InputStatistics | None) -> SolvedLinear:
        """Rounds one weight; a row is clipped only where that lowers its loss."""
        W_OI, rounded = W_OI.float(), self._rounded(W_OI)
        if prepared is None:
            return SolvedLinear(weight=rounded, warnings=(STARVED,))
        if not self._config.clip_search:
            return judged(W_OI, rounded, prepared)
        bits, size, sym = self._config.bits, self._config.group_size, self._config.sym
        fitted = clipped_grid(W_OI, prepared.hessian_II, bits=bits, group_size=size, sym=sym)
        clipped = round_on(W_OI, fitted, bits=bits, group_size=size, sym=sym)
        return judged(W_OI, best_rows(W_OI, prepared.hessian_II, [rounded, clipped]), prepared)

    def _rounded(self, W_OI: torch.Tensor) -> QuantizedWeight:
        config = self._config
        return round_to_nearest(W_OI, bits=config.bits, group_size=config.group_size, sym=config.sym)
