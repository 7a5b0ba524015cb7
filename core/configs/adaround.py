"""AdaRound's options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from core.configs.base import QuantizationConfig
from core.configs.options import option
from core.configs.values import Method


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaRoundConfig(QuantizationConfig):
    """AdaRound (Nagel et al. 2020, arXiv 2004.10568), on Hessians in place of stored inputs."""

    method: ClassVar[Method] = Method.ADAROUND

    iterations: int = option(
        200,
        help="Steps of the optimizer per linear; time grows with them.",
        low=1,
        high=100_000,
        allowed="a whole number from 1 to 100,000",
        per_linear=True,
    )
    learning_rate: float = option(
        0.1,
        help="Step size of the optimizer.",
        low=0.0,
        high=10.0,
        open_ends=True,
        allowed="a number between 0 and 10, both excluded",
        per_linear=True,
    )
    warm_start: float = option(
        0.1,
        help="Share of the steps before weights are driven to one of their two codes.",
        low=0.0,
        high=1.0,
        allowed="a number from 0 to 1",
        per_linear=True,
    )
    clip_search: bool = option(
        True,
        help="A group's range may be clipped where that lowers the group's own output loss.",
        per_linear=True,
    )
