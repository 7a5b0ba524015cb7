"""AdaRound behind the common contract: every linear learns its rounding on the Hessian of its own inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch

from core.configs import AdaRoundConfig
from core.quantizers.base import BaseQuantizer, SolvedLinear
from core.quantizers.judged import STARVED, judged
from core.solver.adaround import Schedule, learn_rounding
from core.solver.clip import best_rows, clipped_grid
from core.solver.hessian import InputStatistics
from core.solver.rtn import round_on, round_to_nearest
from core.weights import QuantizedWeight


class AdaRoundQuantizer(BaseQuantizer[InputStatistics | None]):
    """A row keeps its learned rounding only where that is nearer to the outputs than rounding to nearest."""

    needs_calibration: ClassVar[bool] = AdaRoundConfig.needs_calibration

    def __init__(self, config: AdaRoundConfig) -> None:
        self._config = config
        self._schedule = Schedule(
            iterations=config.iterations, learning_rate=config.learning_rate, warm_start=config.warm_start
        )

    def prepare(self, statistics: InputStatistics | None) -> InputStatistics | None:
        """Has nothing to prepare; returns None where no token arrived."""
        return statistics if statistics is not None and statistics.tokens else None

    def convert(self, W_OI: torch.Tensor, prepared: InputStatistics | None) -> SolvedLinear:
        """Learns the rounding of one weight."""
        config, W_OI = self._config, W_OI.float()
        rounded = round_to_nearest(W_OI, bits=config.bits, group_size=config.group_size, sym=config.sym)
        if prepared is None:
            return SolvedLinear(weight=rounded, warnings=(STARVED,))
        tried = [rounded]
        if config.clip_search:
            tried.append(self._clipped(W_OI, prepared.hessian_II))
        tried.append(self._learned(W_OI, tried[-1], prepared.hessian_II))
        return judged(W_OI, best_rows(W_OI, prepared.hessian_II, tried), prepared)

    def _clipped(self, W_OI: torch.Tensor, H_II: torch.Tensor) -> QuantizedWeight:
        bits, size, sym = self._config.bits, self._config.group_size, self._config.sym
        fitted = clipped_grid(W_OI, H_II, bits=bits, group_size=size, sym=sym)
        return round_on(W_OI, fitted, bits=bits, group_size=size, sym=sym)

    def _learned(self, W_OI: torch.Tensor, start: QuantizedWeight, H_II: torch.Tensor) -> QuantizedWeight:
        group_I = start.g_idx_I.long()
        on_grid = (start.scales_OG.float()[:, group_I], start.zeros_OG.float()[:, group_I])
        codes_OI = learn_rounding(W_OI, H_II, on_grid, self._config.bits, self._schedule, self.beat)
        return replace(start, codes_OI=codes_OI)
