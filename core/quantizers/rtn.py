"""Round-to-nearest behind the common contract."""

from __future__ import annotations

from typing import ClassVar

import torch

from core.configs import RTNConfig
from core.quantizers.base import BaseQuantizer, SolvedLinear
from core.solver.hessian import InputStatistics
from core.solver.rtn import round_to_nearest


class RTNQuantizer(BaseQuantizer[None]):
    """Needs no calibration: every weight is rounded on its group's min-max grid."""

    needs_calibration: ClassVar[bool] = RTNConfig.needs_calibration

    def __init__(self, config: RTNConfig) -> None:
        self._config = config

    def prepare(self, statistics: InputStatistics | None) -> None:
        """Has nothing to prepare."""

    def convert(self, W_OI: torch.Tensor, prepared: None) -> SolvedLinear:  # noqa: ARG002 - the contract's
        """Rounds one weight."""
        config = self._config
        return SolvedLinear(
            weight=round_to_nearest(W_OI, bits=config.bits, group_size=config.group_size, sym=config.sym)
        )
