"""What the API says about a batch: its jobs as rows of one table, to be compared."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.evaluation import EVALUATION_EXAMPLE, EvaluationView
from api.schemas.job_examples import JOB_EXAMPLE, PREFLIGHT_EXAMPLE
from api.schemas.jobs import EstimateView
from store.jobs import JobState

REFERENCE_EXAMPLE: dict[str, Any] = {
    "model": "SmolLM2-135M-Instruct",
    "model_index": 0,
    "method": "float",
    "weights_bytes": EVALUATION_EXAMPLE["bytes_float"],
    "perplexity": EVALUATION_EXAMPLE["perplexity_float"],
    "perplexity_ratio": 1.0,
    "kl_divergence": 0.0,
    "top1_agreement": 1.0,
    "missing": None,
}
ROW_EXAMPLE: dict[str, Any] = {
    "job_id": JOB_EXAMPLE["id"],
    "job": JOB_EXAMPLE["links"]["self"],
    "model": "SmolLM2-135M-Instruct",
    "model_index": 0,
    "config_index": 0,
    "method": "gptq",
    "bits": 4,
    "group_size": 64,
    "config": {"method": "gptq", "bits": 4, "group_size": 64, "sym": True},
    "state": "succeeded",
    "fraction": 1.0,
    "artifact_bytes": 120_802_176,
    "mean_relative_loss": 0.0112,
    "evaluation": EVALUATION_EXAMPLE,
    "seconds": 96.4,
    "error": None,
}
BATCH_EXAMPLE: dict[str, Any] = {
    "object": "batch",
    "id": "batch_0199b2c4d5e67f0190a1b2c3d4e5f6cc",
    "name": "bits against group size",
    "created_at": "2026-11-24T09:00:00Z",
    "states": {"succeeded": 1},
    "references": [REFERENCE_EXAMPLE],
    "table": [ROW_EXAMPLE],
}


BATCH_PREFLIGHT_EXAMPLE: dict[str, Any] = {
    "object": "batch_preflight",
    "cells": [
        {"model_index": 0, "config_index": 0, "warnings": [], "estimate": PREFLIGHT_EXAMPLE["estimate"]},
    ],
}
BATCH_LIST_EXAMPLE: dict[str, Any] = {
    "object": "list",
    "data": [
        {
            **{name: BATCH_EXAMPLE[name] for name in ("id", "name", "created_at", "states")},
            "batch": f"/v1/batches/{BATCH_EXAMPLE['id']}",
        }
    ],
    "next_page_token": None,
}


class BatchCellView(BaseModel):
    """One job that a batch would store. estimate is null for a hub model."""

    model_index: int = Field(description="Place of the model in the request.")
    config_index: int = Field(description="Place of the config in the request.")
    warnings: list[str]
    estimate: EstimateView | None


class BatchPreflightView(BaseModel):
    """What the submit of a batch would store, by model and config."""

    model_config = ConfigDict(json_schema_extra={"examples": [BATCH_PREFLIGHT_EXAMPLE]})

    object: Literal["batch_preflight"] = "batch_preflight"
    cells: list[BatchCellView]


class BatchSummaryView(BaseModel):
    """A batch in a list."""

    id: str
    name: str
    created_at: datetime
    states: dict[JobState, int] = Field(description="How many jobs are in each state; deleted ones are left out.")
    batch: str = Field(description="Path of the batch with its table.")


class BatchList(BaseModel):
    """Batches, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [BATCH_LIST_EXAMPLE]})

    object: Literal["list"] = "list"
    data: list[BatchSummaryView]
    next_page_token: str | None = Field(description="Of the page after this one; null on the last.")


class BatchRow(BaseModel):
    """One job of the batch. What is not known yet is null."""

    job_id: str
    job: str = Field(description="Path of the job.")
    model: str = Field(description="Hub name, or the path inside its root.")
    model_index: int = Field(description="Place of the model in the request.")
    config_index: int = Field(description="Place of the config in the request.")
    method: str
    bits: int
    group_size: int
    config: dict[str, Any] = Field(description="All options of the method.")
    state: JobState
    fraction: float
    artifact_bytes: int | None = Field(description="All files of the artifact.")
    mean_relative_loss: float | None = Field(description="Over the linears that are solved so far; null for `rtn`.")
    evaluation: EvaluationView | None
    seconds: float | None = Field(description="From the first claim to the end.")
    error: str | None = Field(description="Code of the error that ended the job.")


class ReferenceRow(BaseModel):
    """What a batch's jobs compare with: a model as it is, or in NF4. Measured by the jobs that were evaluated."""

    model: str
    model_index: int
    method: Literal["float", "nf4"]
    weights_bytes: int | None
    perplexity: float | None
    perplexity_ratio: float | None = Field(description="By the float model's; 1 is no loss.")
    kl_divergence: float | None
    top1_agreement: float | None
    missing: str | None = Field(description="Why it was not measured, and what to do about it.")


class BatchView(BaseModel):
    """Jobs that were submitted together, ordered by model and config. Deleted jobs are left out."""

    model_config = ConfigDict(json_schema_extra={"examples": [BATCH_EXAMPLE]})

    object: Literal["batch"] = "batch"
    id: str
    name: str
    created_at: datetime
    states: dict[JobState, int] = Field(description="How many jobs are in each state; zeros are left out.")
    references: list[ReferenceRow] = Field(description="Rows beside the jobs; none before a job was evaluated.")
    table: list[BatchRow]
