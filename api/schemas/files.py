"""What the API says about files: artifacts, calibration sets and uploaded models."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

JOB_ID_EXAMPLE = "job_0199b2c4d5e67f0190a1b2c3d4e5f607"
ARTIFACT_ID_EXAMPLE = "art_0199b2c5a1b27f0190a1b2c3d4e5f6bb"
SHA256_EXAMPLE = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
ARTIFACT_EXAMPLE: dict[str, Any] = {
    "id": ARTIFACT_ID_EXAMPLE,
    "object": "artifact",
    "name": "model.safetensors",
    "sha256": SHA256_EXAMPLE,
    "size_bytes": 118_201_344,
    "media_type": "application/octet-stream",
    "created_at": "2026-11-24T09:02:10Z",
    "content": f"/v1/jobs/{JOB_ID_EXAMPLE}/artifacts/{ARTIFACT_ID_EXAMPLE}/content",
}
CALIBRATION_EXAMPLE: dict[str, Any] = {
    "id": "cal_0199b2c4d0007f0190a1b2c3d4e5f601",
    "object": "calibration_set",
    "name": "support-tickets.jsonl",
    "format": "jsonl",
    "sha256": SHA256_EXAMPLE,
    "size_bytes": 1_482_113,
    "documents": 4_012,
    "conversations": 0,
    "characters": 1_401_870,
    "estimated_tokens": 350_467,
    "created_at": "2026-11-24T08:58:00Z",
    "pinned": False,
    "expires_at": None,
    "expiry_warned_at": None,
    "warnings": [],
}


UPLOADED_MODEL_EXAMPLE: dict[str, Any] = {
    "id": "mdl_0199b2c4d0007f0190a1b2c3d4e5f602",
    "object": "uploaded_model",
    "name": "SmolLM2-135M-Instruct",
    "model_type": "llama",
    "sha256": SHA256_EXAMPLE,
    "size_bytes": 269_060_552,
    "files": 1,
    "contents": [{"name": "model.safetensors", "sha256": SHA256_EXAMPLE, "size_bytes": 269_060_552}],
    "created_at": "2026-11-24T08:50:00Z",
    "pinned": False,
    "expires_at": None,
    "expiry_warned_at": None,
}


class ArtifactView(BaseModel):
    """One file of a finished job; its bytes never change."""

    model_config = ConfigDict(json_schema_extra={"examples": [ARTIFACT_EXAMPLE]})

    id: str
    object: Literal["artifact"] = "artifact"
    name: str = Field(description="Path relative to the artifact folder.")
    sha256: str
    size_bytes: int
    media_type: str
    created_at: datetime
    content: str = Field(description="Where the bytes are.")


class ArtifactList(BaseModel):
    """Every file of the job; empty until it has succeeded."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"object": "list", "data": [ARTIFACT_EXAMPLE]}]})

    object: Literal["list"] = "list"
    data: list[ArtifactView]


class CalibrationSetView(BaseModel):
    """A stored text. A list leaves out what takes a look over the text."""

    model_config = ConfigDict(json_schema_extra={"examples": [CALIBRATION_EXAMPLE]})

    id: str
    object: Literal["calibration_set"] = "calibration_set"
    name: str
    format: str = Field(description="`text` or `jsonl`.")
    sha256: str
    size_bytes: int
    documents: int
    created_at: datetime
    conversations: int | None = Field(default=None, description="Documents that are conversations (`messages`).")
    characters: int | None = None
    estimated_tokens: int | None = Field(
        default=None, description="From its characters; the worker counts with the model's tokenizer."
    )
    warnings: list[str] = Field(default_factory=list, description="What a look over the text found.")
    pinned: bool = Field(description="Kept whatever `expires_at` says.")
    expires_at: datetime | None = Field(description="When it goes, unless an unfinished job needs it then.")
    expiry_warned_at: datetime | None = Field(
        description="When webhooks were told that it goes; null again once it is pinned or has another time."
    )


class CalibrationSetList(BaseModel):
    """This key's calibration sets, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"object": "list", "data": [CALIBRATION_EXAMPLE]}]})

    object: Literal["list"] = "list"
    data: list[CalibrationSetView]


class ModelFileView(BaseModel):
    """One file of a model."""

    name: str
    sha256: str
    size_bytes: int


class UploadedModelView(BaseModel):
    """A stored model, which a job names by its id."""

    model_config = ConfigDict(json_schema_extra={"examples": [UPLOADED_MODEL_EXAMPLE]})

    id: str
    object: Literal["uploaded_model"] = "uploaded_model"
    name: str
    model_type: str
    sha256: str = Field(description="Of the list of its files' checksums, as `sha256sum *` prints it.")
    size_bytes: int
    files: int
    contents: list[ModelFileView] | None = Field(default=None, description="By name; a list leaves them out.")
    created_at: datetime
    pinned: bool = Field(description="Kept whatever `expires_at` says.")
    expires_at: datetime | None = Field(description="When it goes, unless an unfinished job needs it then.")
    expiry_warned_at: datetime | None = Field(
        description="When webhooks were told that it goes; null again once it is pinned or has another time."
    )


class UploadedModelList(BaseModel):
    """This key's uploaded models, newest first."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"object": "list", "data": [UPLOADED_MODEL_EXAMPLE | {"contents": None}]}]}
    )

    object: Literal["list"] = "list"
    data: list[UploadedModelView]
