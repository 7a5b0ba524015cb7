"""What the API says about workers and the room that they have together."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

WORKER_EXAMPLE: dict[str, Any] = {
    "id": "gpu-07-4211-wrk_0199b2c4d5e67f0190a1b2c3d4e5f607",
    "object": "worker",
    "hostname": "gpu-07",
    "pid": 4211,
    "state": "busy",
    "engine_version": "0.1.0",
    "device": "cpu",
    "device_name": "AMD EPYC 9554 64-Core Processor",
    "memory_bytes": 68_719_476_736,
    "queue_classes": ["default"],
    "slots": 1,
    "busy": 1,
    "jobs": ["job_0199b2c4d5e67f0190a1b2c3d4e5f607"],
    "registered_at": "2026-11-24T08:00:00Z",
    "heartbeat_at": "2026-11-24T09:01:30Z",
    "drain_requested_at": None,
}
CAPACITY_EXAMPLE: dict[str, Any] = {
    "queue_class": "default",
    "workers": 1,
    "slots": 1,
    "busy": 1,
    "free": 0,
    "waiting": 3,
    "largest_memory_bytes": 68_719_476_736,
}


class WorkerView(BaseModel):
    """A worker process. A restart makes a new one; one that ended in an orderly way is not shown."""

    model_config = ConfigDict(json_schema_extra={"examples": [WORKER_EXAMPLE]})

    id: str
    object: Literal["worker"] = "worker"
    hostname: str
    pid: int
    state: Literal["idle", "busy", "draining", "drained", "lost"] = Field(
        description=(
            "`draining`: it gives its job back at the end of the block and takes no more. `drained`: it holds none. "
            "`lost`: not heard of for 45 seconds; it is forgotten after a day."
        )
    )
    engine_version: str
    device: str = Field(description="`cpu` or `cuda`.")
    device_name: str
    memory_bytes: int = Field(description="Of the machine, or of its control group.")
    queue_classes: list[str]
    slots: int = Field(description="Jobs at a time.")
    busy: int = Field(description="Jobs that it holds now, whoever owns them.")
    jobs: list[str] = Field(description="Those of them that this key may see.")
    registered_at: datetime
    heartbeat_at: datetime
    drain_requested_at: datetime | None


class CapacityView(BaseModel):
    """The room of one queue class, over all workers that take jobs."""

    model_config = ConfigDict(json_schema_extra={"examples": [CAPACITY_EXAMPLE]})

    queue_class: str
    workers: int
    slots: int
    busy: int
    free: int
    waiting: int = Field(description="Jobs that could be claimed now.")
    largest_memory_bytes: int | None = Field(description="Null where no worker takes jobs.")


class WorkerList(BaseModel):
    """Every worker, the newest first, and the room by queue class."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"object": "list", "data": [WORKER_EXAMPLE], "capacity": [CAPACITY_EXAMPLE]}],
        }
    )

    object: Literal["list"] = "list"
    data: list[WorkerView]
    capacity: list[CapacityView]
