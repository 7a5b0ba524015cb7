"""What the API says about a batch: its jobs as rows of one table, to be compared."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from api.schemas.evaluation import EvaluationView
from store.jobs import JobState


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

    object: Literal["batch"] = "batch"
    id: str
    name: str
    created_at: datetime
    states: dict[JobState, int] = Field(description="How many jobs are in each state; zeros are left out.")
    references: list[ReferenceRow] = Field(description="Rows beside the jobs; none before a job was evaluated.")
    table: list[BatchRow]
