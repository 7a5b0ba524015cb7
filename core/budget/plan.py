"""A budget's outcome: the grid of each unit, the config that says so, and the curve of what other sizes would give.

Standard library only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from core.configs import QuantizationConfig, config_from_dict
from core.overrides import Overrides

PLAN_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedUnit:
    """Linears on one grid. divergence: their share of the predicted KL divergence from the float model, in nats.

    linears, weights: how many. relative_loss: what rounding changes of their outputs' power.
    """

    block: int
    family: str
    linears: int
    weights: int
    bits: int
    group_size: int
    divergence: float
    relative_loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """A size, in bits per quantized weight, and the divergence that is predicted there, nats per token.

    grid: where all linears share one, else empty.
    """

    bits: float
    divergence: float
    grid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetPlan:
    """What was chosen, and what from.

    key: names everything that the plan was made from. quantized_bytes: of the quantized linears in the first format.
    curve: the best mixture of each size. uniform: one grid for all. mixed: whether the targets load several grids.
    """

    key: str
    config: QuantizationConfig
    limit_bytes: int
    quantized_bytes: int
    bits: float
    divergence: float
    units: tuple[PlannedUnit, ...]
    curve: tuple[CurvePoint, ...]
    uniform: tuple[CurvePoint, ...]
    mixed: bool
    tokens: int
    seconds: float
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        values = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name != "config"
        }
        return {"plan_version": PLAN_VERSION, **values, "config": self.config.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads what `to_dict` wrote; raises ValueError, KeyError or TypeError where it is something else."""
        given = dict(values)
        version = given.pop("plan_version", None)
        if version != PLAN_VERSION:
            raise ValueError(f"plan_version is {version!r}, this program reads {PLAN_VERSION}.")
        units = tuple(PlannedUnit(**unit) for unit in given.pop("units"))
        curve, uniform = (tuple(CurvePoint(**point) for point in given.pop(name)) for name in ("curve", "uniform"))
        return cls(
            units=units,
            curve=curve,
            uniform=uniform,
            config=config_from_dict(dict(given.pop("config"))),
            warnings=tuple(given.pop("warnings")),
            **given,
        )


def plan_key(**parts: Any) -> str:  # noqa: ANN401 - plain JSON values
    """Returns one name for everything that a plan depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=_plain).encode()).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, Overrides):
        return value.to_pairs()
    raise TypeError(f"{type(value).__name__} is no JSON value")
