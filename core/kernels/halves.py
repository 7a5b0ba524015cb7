"""Which part of a square matrix takes part in a product."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Half(IntEnum):
    """All of a matrix, or what lies on and below its diagonal, or on and above it."""

    ALL = 0
    LOWER = 1
    UPPER = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Halves:
    """wanted: of the product, the rest of which is not meaningful. left, right: of the sides, one of which is ALL."""

    wanted: Half = Half.ALL
    left: Half = Half.ALL
    right: Half = Half.ALL


WHOLE = Halves()
