"""AWQ's options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from core.configs.base import QuantizationConfig
from core.configs.options import option
from core.configs.values import Method


@dataclass(frozen=True, slots=True, kw_only=True)
class AWQConfig(QuantizationConfig):
    """AWQ (Lin et al. 2023, arXiv 2306.00978), with channel scales that are powers of two."""

    method: ClassVar[Method] = Method.AWQ

    channel_steps: int = option(
        20,
        help="Steps of the search for channel scales, taken over by the operation in front; 0 scales no channel.",
        low=0,
        high=1000,
        allowed="a whole number from 0 to 1,000",
        per_linear=True,
    )
    clip_search: bool = option(
        True,
        help="A group's range may be clipped where that lowers the group's own output loss.",
        per_linear=True,
    )
