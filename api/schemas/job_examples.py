"""What answers about a job look like, for the document: one job in the middle of its blocks, and its parts."""

from __future__ import annotations

from typing import Any

JOB_EXAMPLE: dict[str, Any] = {
    "id": "job_0199b2c4d5e67f0190a1b2c3d4e5f607",
    "object": "job",
    "version": 17,
    "state": "running",
    "stage": "quantizing",
    "spec": {
        "model": {"source": "path", "root": "models", "path": "SmolLM2-135M-Instruct"},
        "method": "gptq",
        "bits": 4,
        "group_size": 64,
        "sym": True,
        "order": "desc_act_static",
        "damp_percent": 0.05,
        "true_sequential": True,
        "scale_search": "curvature",
        "signed_scales": True,
        "mismatch_alpha": 0.75,
        "dynamic": {},
        "calibration": {"set": "cal_0199b2c4d0007f0190a1b2c3d4e5f601", "samples": 32, "seq_len": 512, "seed": 0},
        "formats": ["gptq"],
        "targets": ["gptqmodel", "transformers"],
        "evaluate": False,
        "needs": {},
    },
    "resolved": {"calibration_sha256": "9f2c4d1a…"},
    "labels": {"team": "search"},
    "queue_class": "default",
    "needs": {"device": None, "memory_bytes": 1_093_554_176},
    "priority": 0,
    "attempt": 1,
    "failures": 0,
    "max_attempts": 3,
    "deadline_s": 3600,
    "deadline_at": "2026-11-24T10:00:00Z",
    "worker": "wrk_0199b2c4d5e67f0190a1b2c3d4e5f6aa",
    "progress": {
        "fraction": 0.42,
        "blocks_done": 12,
        "blocks_total": 30,
        "eta_at": "2026-11-24T09:01:30Z",
        "rss_bytes": 612_000_000,
        "last_linear": "model.layers.11.mlp.down_proj",
        "last_loss": 0.0123,
    },
    "error": None,
    "warnings": [],
    "evaluation": None,
    "created_at": "2026-11-24T09:00:00Z",
    "updated_at": "2026-11-24T09:00:42Z",
    "started_at": "2026-11-24T09:00:01Z",
    "heartbeat_at": "2026-11-24T09:00:42Z",
    "finished_at": None,
    "pinned": False,
    "expires_at": None,
    "expiry_warned_at": None,
    "links": {
        "self": "/v1/jobs/job_0199b2c4d5e67f0190a1b2c3d4e5f607",
        "progress": "/v1/jobs/job_0199b2c4d5e67f0190a1b2c3d4e5f607/progress",
        "queue_position": "/v1/jobs/job_0199b2c4d5e67f0190a1b2c3d4e5f607/queue-position",
        "events": "/v1/jobs/job_0199b2c4d5e67f0190a1b2c3d4e5f607/events",
        "events_stream": "/v1/jobs/job_0199b2c4d5e67f0190a1b2c3d4e5f607/events/stream",
        "logs": "/v1/jobs/job_0199b2c4d5e67f0190a1b2c3d4e5f607/logs",
        "linears": "/v1/jobs/job_0199b2c4d5e67f0190a1b2c3d4e5f607/linears",
        "artifacts": "/v1/jobs/job_0199b2c4d5e67f0190a1b2c3d4e5f607/artifacts",
        "archive": "/v1/jobs/job_0199b2c4d5e67f0190a1b2c3d4e5f607/archive.zip",
        "checksums": "/v1/jobs/job_0199b2c4d5e67f0190a1b2c3d4e5f607/SHA256SUMS",
    },
}


ERROR_EXAMPLE: dict[str, Any] = {
    "code": "numerical_error",
    "message": "The Hessian of model.layers.7.mlp.down_proj is not positive definite.",
    "hint": "Raise damp_percent, or calibrate on more tokens.",
    "retryable": False,
    "stage": "quantizing",
    "block": 7,
    "linear": "model.layers.7.mlp.down_proj",
    "attempt": 1,
}
PROGRESS_EXAMPLE: dict[str, Any] = {
    "object": "job_progress",
    **JOB_EXAMPLE["progress"],
    **{
        name: JOB_EXAMPLE[name]
        for name in ("id", "version", "state", "stage", "attempt", "heartbeat_at", "finished_at", "error")
    },
}
QUEUE_POSITION_EXAMPLE: dict[str, Any] = {
    "object": "queue_position",
    "id": JOB_EXAMPLE["id"],
    "state": "queued",
    "position": 3,
    "waiting": 7,
    "workers": 2,
    "free_slots": 0,
    "obstacle": None,
    "available_at": None,
}
EVENT_EXAMPLE: dict[str, Any] = {
    "seq": 9,
    "kind": "block_quantized",
    "at": "2026-11-24T09:00:42Z",
    "attempt": 1,
    "payload": {"block": 11, "blocks_total": 30, "seconds": 2.4, "rss_bytes": 612_000_000},
}
LOG_LINE_EXAMPLE: dict[str, Any] = {
    "attempt": 1,
    "number": 4,
    "at": "2026-11-24T09:00:42Z",
    "level": "info",
    "source": "child",
    "text": "block 11 solved",
    "fields": {"seconds": 2.4},
}
ATTEMPT_EXAMPLE: dict[str, Any] = {
    "number": 1,
    "worker": JOB_EXAMPLE["worker"],
    "started_at": "2026-11-24T09:00:01Z",
    "ended_at": "2026-11-24T09:00:21Z",
    "outcome": "failed",
    "error": ERROR_EXAMPLE,
}
LINEAR_EXAMPLE: dict[str, Any] = {
    "block": 11,
    "linear": "model.layers.11.mlp.down_proj",
    "bits": 4,
    "group_size": 64,
    "loss": 0.0123,
    "relative_loss": 0.0041,
    "tokens": 16_384,
    "damp_percent": 0.05,
    "seconds": 0.31,
    "warnings": [],
    "attempt": 1,
}
PREFLIGHT_EXAMPLE: dict[str, Any] = {
    "object": "preflight",
    "spec": JOB_EXAMPLE["spec"],
    "warnings": [],
    "estimate": {
        "ram_bytes": 1_093_554_176,
        "disk_bytes": 387_000_000,
        "artifact_bytes": 118_402_176,
        "seconds": 96.0,
    },
}
