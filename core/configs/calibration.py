"""How calibration text becomes token windows: the options of the draw."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

from core.configs.options import check_options, declared_options, option, refuse_unknown
from core.configs.values import Packing

PREFIX = "calibration."


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationConfig:
    """How many windows of how many tokens are drawn from the calibration text, and with which seed."""

    samples: int = option(
        32, help="Windows, 1 to 65,536.", low=1, high=65_536, allowed="a whole number from 1 to 65,536"
    )
    seq_len: int = option(
        512, help="Tokens per window, 16 to 131,072.", low=16, high=131_072, allowed="a whole number from 16 to 131,072"
    )
    seed: int = option(
        0,
        help="Chooses the windows; the same seed gives the same bytes.",
        low=0,
        high=2**32 - 1,
        allowed="a whole number from 0 to 4,294,967,295",
    )

    packing: Packing = option(
        Packing.PACKED,
        help="`packed` cuts windows from all documents in a row, `document` takes each from one document.",
    )

    def __post_init__(self) -> None:
        """Raises InvalidConfigError, naming the field, where a value is out of range."""
        check_options(self, PREFIX)

    @property
    def tokens(self) -> int:
        """Returns the number of tokens that all windows hold together."""
        return self.samples * self.seq_len

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {**asdict(self), "packing": str(self.packing)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Reads what `to_dict` wrote; raises InvalidConfigError on an unknown field."""
        refuse_unknown(values, declared_options(cls), PREFIX)
        return cls(**values)
