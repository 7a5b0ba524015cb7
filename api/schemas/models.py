"""What the API asks and says about a model before any job: its facts, what would be refused, what would be needed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.job_examples import JOB_EXAMPLE, PREFLIGHT_EXAMPLE
from api.schemas.jobs import EstimateView
from api.schemas.options import Strict
from api.schemas.requests import AnyModel, JobOptions

CONFIGS_MAX = 50


INSPECTION_EXAMPLE: dict[str, Any] = {
    "object": "model_inspection",
    "model": JOB_EXAMPLE["spec"]["model"],
    "accepted": True,
    "refusal": None,
    "facts": {
        "architecture": "LlamaForCausalLM",
        "model_type": "llama",
        "blocks": 30,
        "hidden_size": 576,
        "parameters": 134_515_008,
        "total_bytes": 269_060_552,
        "dtype": "bfloat16",
        "linears": 210,
        "experts": 0,
        "tied_head": True,
        "max_positions": 8192,
        "group_sizes": [16, 32, 64, -1],
    },
    "configs": [
        {"accepted": True, "refusal": None, "warnings": [], "estimate": PREFLIGHT_EXAMPLE["estimate"]},
        {
            "accepted": False,
            "refusal": {
                "code": "invalid_config",
                "detail": "group_size is 128: self_attn.q_proj has 576 inputs, which it does not divide.",
                "hint": "Use one of 16, 32, 64, 192, 576, or -1.",
                "pointer": "#/group_size",
            },
            "warnings": [],
            "estimate": None,
        },
    ],
}


class InspectRequest(Strict):
    """A model, and configs to try on it without running them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": {"source": "path", "path": "/models/SmolLM2-135M-Instruct"},
                    "configs": [{"bits": 4, "group_size": 64}, {"bits": 3, "group_size": 128}],
                }
            ]
        },
    )

    model: AnyModel
    configs: list[JobOptions] = Field(
        default=[JobOptions()], max_length=CONFIGS_MAX, description="The defaults alone where left out."
    )


class ModelFolderView(BaseModel):
    """A folder that a job may name as its model."""

    root: str
    path: str = Field(description="Below the root.")
    model_type: str
    bytes: int = Field(description="Of its safetensors files.")


class ModelFolderList(BaseModel):
    """What lies under the allowed roots, by path."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "list",
                    "data": [
                        {
                            "root": "models",
                            "path": "SmolLM2-135M-Instruct",
                            "model_type": "llama",
                            "bytes": 269_060_552,
                        }
                    ],
                    "roots": ["models"],
                    "truncated": False,
                }
            ]
        },
    )

    object: Literal["list"] = "list"
    data: list[ModelFolderView]
    roots: list[str] = Field(description="Names of the allowed roots.")
    truncated: bool = Field(description="There may be more: the roots hold too much to look through.")


class RefusalView(BaseModel):
    """Why a submit would be refused."""

    code: str
    detail: str
    hint: str
    pointer: str | None = Field(description="JSON pointer into the submit's body.")


class ModelFactsView(BaseModel):
    """What headers and config.json say."""

    architecture: str
    model_type: str
    blocks: int = Field(description="Decoder layers.")
    hidden_size: int
    parameters: int = Field(description="Stored values; a tied head counts once.")
    total_bytes: int
    dtype: str = Field(description="The one that most bytes are in.")
    linears: int = Field(description="Linears that can be quantized.")
    experts: int = Field(description="Of the block that has most; 0 in a dense model.")
    tied_head: bool
    max_positions: int | None
    group_sizes: list[int] = Field(description="Common group sizes that divide every linear's inputs; -1: a whole row.")


class ConfigCheckView(BaseModel):
    """What became of one of the configs."""

    accepted: bool
    refusal: RefusalView | None
    warnings: list[str]
    estimate: EstimateView | None


class InspectionView(BaseModel):
    """The preflight of a model. facts is null for a refused model, and for a hub model, which is not here yet."""

    model_config = ConfigDict(json_schema_extra={"examples": [INSPECTION_EXAMPLE]})

    object: Literal["model_inspection"] = "model_inspection"
    model: dict[str, Any] = Field(description="As a job's spec would name it.")
    accepted: bool = Field(description="False where no config could run on this model.")
    refusal: RefusalView | None
    facts: ModelFactsView | None
    configs: list[ConfigCheckView] = Field(description="In the order of the request; empty for a refused model.")
