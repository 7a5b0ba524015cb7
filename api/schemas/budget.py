"""What the API says about a job's budget: the plan, and the curve that it was chosen from."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

BUDGET_EXAMPLE: dict[str, Any] = {
    "object": "budget",
    "bits": 3.497,
    "divergence": 0.081,
    "limit_bytes": 46_448_640,
    "quantized_bytes": 46_409_100,
    "mixed": True,
    "tokens": 4096,
    "seconds": 41.2,
    "curve": [{"bits": 3.039, "divergence": 0.214, "grid": ""}, {"bits": 3.497, "divergence": 0.081, "grid": ""}],
    "uniform": [{"bits": 3.613, "divergence": 0.118, "grid": "3 bits, groups of 32"}],
    "units": [
        {
            "block": 0,
            "family": "mlp.down_proj",
            "linears": 1,
            "weights": 884_736,
            "bits": 4,
            "group_size": 64,
            "divergence": 0.0009,
            "relative_loss": 0.0041,
        }
    ],
}


class BudgetPointView(BaseModel):
    """A size and what is predicted there. grid: where all linears share one, else empty."""

    bits: float = Field(description="Bits per quantized weight on disk.")
    divergence: float = Field(description="Predicted KL divergence from the float model, nats per token.")
    grid: str


class BudgetUnitView(BaseModel):
    """Linears of one block that got the same grid."""

    block: int
    family: str = Field(description="Their common name inside the block.")
    linears: int
    weights: int
    bits: int
    group_size: int
    divergence: float = Field(description="Their share of the prediction.")
    relative_loss: float = Field(description="Share of their outputs' power that rounding changes.")


class BudgetView(BaseModel):
    """What was chosen under a budget, and what from."""

    model_config = ConfigDict(json_schema_extra={"examples": [BUDGET_EXAMPLE]})

    object: Literal["budget"] = "budget"
    bits: float = Field(description="Bits per quantized weight of the choice.")
    divergence: float = Field(description="Predicted KL divergence from the float model, nats per token.")
    limit_bytes: int = Field(description="What the quantized linears might take.")
    quantized_bytes: int = Field(description="What they take.")
    mixed: bool = Field(description="False where a target loads one grid for all linears only.")
    tokens: int = Field(description="Calibration tokens that it was measured on.")
    seconds: float
    curve: list[BudgetPointView] = Field(description="The best mixture of each size, by rising size.")
    uniform: list[BudgetPointView] = Field(description="One grid for all linears, by rising size.")
    units: list[BudgetUnitView]
