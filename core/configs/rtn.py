"""Round-to-nearest's options: the grid alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from core.configs.base import QuantizationConfig
from core.configs.values import Method


@dataclass(frozen=True, slots=True, kw_only=True)
class RTNConfig(QuantizationConfig):
    """Round-to-nearest on min-max scales: no calibration, the floor that every other method must beat."""

    method: ClassVar[Method] = Method.RTN
    needs_calibration: ClassVar[bool] = False
