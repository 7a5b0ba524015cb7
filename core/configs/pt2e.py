"""The options of activation quantization through torchao's PT2E, behind a method that chose the weights."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from core.configs.options import check_options, option


class ActivationRange(StrEnum):
    """How an activation's 8-bit range is chosen from the calibration calls."""

    HISTOGRAM = "histogram"
    """The range with the least squared rounding difference over a histogram of what was seen."""
    MINMAX = "minmax"
    """From the smallest to the largest value that was seen: faster, and at the mercy of outliers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PT2EConfig:
    """Static 8-bit activations for an exported model whose linears are quantized already.

    It is no method of its own: it takes the weights as they are, and its result is a graph and not a checkpoint.
    """

    activation_range: ActivationRange = option(
        ActivationRange.HISTOGRAM, help="How the 8-bit range of a linear's input is chosen."
    )

    def __post_init__(self) -> None:
        """Raises InvalidConfigError, naming the field, where a value is out of range."""
        check_options(self)
