"""How large an artifact may become: the options of the choice of bits and group size per linear."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

from core.configs.options import check_options, declared_options, option, refuse_unknown, require
from core.configs.values import BITS

PREFIX = "budget."
MOST_BITS = 16.0
MOST_BYTES = 2**50


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetConfig:
    """A limit on the artifact's size; bits and group size of each linear are chosen under it, from measured losses."""

    bits: float = option(
        0.0,
        help="Bits per quantized weight on disk, with scales, zeros and group indexes; 0: no such limit.",
        low=0.0,
        high=MOST_BITS,
        allowed="a number from 0 to 16",
    )
    bytes: int = option(
        0,
        help="Bytes of the artifact's safetensors files in its first format; 0: no such limit.",
        low=0,
        high=MOST_BYTES,
        allowed="a whole number of bytes",
    )
    lowest_bits: int = option(
        3,
        help="No linear gets fewer bits than this.",
        choices=BITS,
        reason="not a supported width",
        allowed="2, 3, 4 or 8",
    )
    windows: int = option(
        8,
        help="Calibration windows that losses and sensitivities are measured on, 1 to 1,024.",
        low=1,
        high=1024,
        allowed="a whole number from 1 to 1,024",
    )

    def __post_init__(self) -> None:
        """Raises InvalidConfigError, naming the field, where a value is out of range or there is no limit at all."""
        check_options(self, PREFIX)
        require(bool(self.bits or self.bytes), f"{PREFIX}bits", self.bits, "no limit is set", "bits, bytes or both")

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Reads what `to_dict` wrote; raises InvalidConfigError on an unknown field."""
        refuse_unknown(values, declared_options(cls), PREFIX)
        return cls(**values)
