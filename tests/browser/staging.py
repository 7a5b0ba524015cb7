"""Fills a service with jobs in every state, as a worker's writes would leave them, for pages to be looked at."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from api.deps import LOCAL_OWNER
from core.budget.plan import BudgetPlan, CurvePoint, PlannedUnit
from core.configs import GPTQConfig
from store.jobs import Job, JobError, JobProgress, LinearRow, LogLine, NewArtifact, Stage
from store.kept import KeptKind
from store.publications import NewPublication
from store.workers import Capability, WorkerFacts
from tests.api.service import WORKER, Service
from tests.core.preflight.archives import folder_files, pack

MODEL = "SmolLM2-135M-Instruct"
BLOCKS = 30
LINEARS = (
    ("self_attn.q_proj", 0.004),
    ("self_attn.k_proj", 0.003),
    ("self_attn.v_proj", 0.009),
    ("self_attn.o_proj", 0.012),
    ("mlp.gate_proj", 0.010),
    ("mlp.up_proj", 0.011),
    ("mlp.down_proj", 0.018),
)
LINES = (
    ("worker", "job claimed", {"worker": WORKER}),
    ("worker", "model folder checked", {"tensors": 272, "dtype": "bfloat16"}),
    ("worker", "calibration text fetched", {"documents": 412, "bytes": 1_482_113}),
    ("child", "engine started", {"threads": 2, "numerics": "bfloat16, AVX512"}),
    ("child", "16,384 tokens in 32 windows", {}),
)


KEY = {"name": "ci", "scopes": ["jobs:read", "jobs:write"], "quotas": {"stored_bytes": 50_000_000_000}}
WEBHOOK = {"name": "build server", "url": "https://ci.example.com/hooks/bitmill"}


@dataclass(frozen=True, slots=True)
class Staged:
    """Ids of the staged jobs."""

    running: str
    queued: str
    succeeded: tuple[str, ...]
    failed: str
    cancelled: str
    budgeted: str
    batch: str


def stage(service: Service, *, blocks_done: int = 12) -> Staged:
    """Stores a worker and jobs in every state; the running one has done `blocks_done` blocks."""
    register(service)
    succeeded = tuple(
        succeed(service, perplexity, size, **options)
        for perplexity, size, options in (
            (12.15, 118, {"bits": 4, "group_size": 32}),
            (12.71, 112, {"bits": 4, "group_size": 32, "method": "rtn"}),
            (16.70, 98, {"bits": 3, "group_size": 32, "labels": {"study": "bits"}}),
            (11.66, 176, {"bits": 8, "group_size": 32}),
        )
    )
    batch = succeed_batch(service)
    budgeted = succeed_under_budget(service)
    failed = fail(service)
    cancelled = submit(service, bits=2)["id"]
    service.client.post(f"/v1/jobs/{cancelled}:cancel").raise_for_status()
    publish(service, succeeded[0])
    store_text(service)
    warn_of_model(service, upload_model(service))
    service.client.post("/v1/api-keys", json=KEY).raise_for_status()
    service.client.post("/v1/webhooks", json=WEBHOOK).raise_for_status()
    running = run(service, blocks_done, deadline_s=7200)
    queued = submit(service, labels={"team": "search"}, priority=5)["id"]
    submit(service, bits=3)
    return Staged(running, queued, succeeded, failed, cancelled, budgeted, batch)


def submit(service: Service, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of a request
    """Submits a job on the model."""
    return service.submit(model={"source": "path", "root": "models", "path": MODEL}, **options)


def register(service: Service) -> None:
    """Registers the worker that the jobs were run by."""
    facts = WorkerFacts(
        id=WORKER,
        hostname="mill-01",
        pid=4211,
        engine_version="0.1.0",
        device_name="16-core processor",
        capability=Capability(device="cpu", memory_bytes=68_719_476_736),
        slots=2,
        queue_classes=("default",),
    )
    with service.services.database.transaction() as repository:
        repository.register_worker(facts)


def start(service: Service, **options: Any) -> Job:  # noqa: ANN401 - fields of a request
    """Submits and claims a job and writes how it begins."""
    submit(service, **options)
    return begin(service)


def begin(service: Service) -> Job:
    """Claims the next job and writes how it begins."""
    job = service.claim()
    event(service, job, "stage_started", {"stage": "preflight"})
    event(service, job, "stage_started", {"stage": "calibrating"})
    write_lines(service, job, LINES)
    event(service, job, "run_started", {"blocks_total": BLOCKS, "blocks_resumed": 0, "fingerprint": "9f2c4d1a"})
    event(service, job, "stage_started", {"stage": "quantizing"})
    return job


def run(service: Service, blocks: int, **options: Any) -> str:  # noqa: ANN401 - fields of a request
    """Leaves a job in the middle of its blocks."""
    job = start(service, **options)
    solve(service, job, blocks)
    return job.id


def succeed(service: Service, perplexity: float, megabytes: int, **options: Any) -> str:  # noqa: ANN401
    """Runs a job to its end, with an evaluation and files."""
    return finish(service, start(service, evaluate=True, **options), perplexity, megabytes)


def finish(service: Service, job: Job, perplexity: float, megabytes: int) -> str:
    """Writes the rest of a job that has begun."""
    solve(service, job, BLOCKS, scale=perplexity - 11.5)
    for name in ("packing", "evaluating", "publishing"):
        event(service, job, "stage_started", {"stage": name})
    evaluation = evaluated(perplexity, megabytes)
    files = [stored(service, name, content) for name, content in small_files(job.id).items()]
    # As large as a model's, without its bytes: nobody downloads this one.
    files.append(
        NewArtifact(
            name="model.safetensors",
            sha256="5f" * 32,
            size_bytes=megabytes * 1_000_000,
            media_type="application/octet-stream",
        )
    )
    with service.services.database.transaction() as repository:
        repository.succeed(job.id, job.lease_token, files, evaluation, [])
    return job.id


def succeed_batch(service: Service) -> str:
    """Submits a batch, brings all of its jobs but the last to their end, and that one to a failure."""
    configs = [{"bits": bits, "group_size": 32, "evaluate": True} for bits in (3, 4, 8, 2)]
    model = {"source": "path", "root": "models", "path": MODEL}
    answer = service.client.post("/v1/batches", json={"name": "how few bits", "models": [model], "configs": configs})
    batch: str = answer.raise_for_status().json()["id"]
    for perplexity, megabytes in ((13.94, 98), (12.15, 118), (11.66, 176)):
        finish(service, begin(service), perplexity, megabytes)
    lost = begin(service)
    error = JobError(code="artifact_degenerate", message="The quantized model repeats itself.", retryable=False)
    with service.services.database.transaction() as repository:
        repository.fail(lost.id, lost.lease_token, error)
    return batch


def succeed_under_budget(service: Service) -> str:
    """Runs a job under a budget to its end, with its plan."""
    job = start(service, evaluate=True, budget={"bits": 4.5})
    keep_plan(service, job)
    return finish(service, job, 12.02, 127)


def keep_plan(service: Service, job: Job) -> None:
    """Writes that the job has planned."""
    with service.services.database.transaction() as repository:
        repository.set_resolved(job.id, job.lease_token, {"budget_plan": plan().to_dict()})
    event(service, job, "budget_planned", {"bits": 4.497, "divergence": predicted(4.497)})


def predicted(bits: float) -> float:
    """Returns a divergence that falls with the bits as it does in a model."""
    return 2.4 * 10 ** (-0.42 * (bits - 2))


def plan() -> BudgetPlan:
    """Returns a plan as the planner would make it."""
    grids = ((4, 32), (4, 64), (3, 32), (8, 64))
    units = [
        PlannedUnit(
            block=block,
            family=name,
            linears=1,
            weights=331_776,
            bits=grids[(block + number) % 4][0],
            group_size=grids[(block + number) % 4][1],
            divergence=0.0009,
            relative_loss=0.0041,
        )
        for block in range(BLOCKS)
        for number, (name, _) in enumerate(LINEARS)
    ]
    return BudgetPlan(
        key="0" * 64,
        config=GPTQConfig(group_size=32),
        limit_bytes=59_719_680,
        quantized_bytes=59_680_000,
        bits=4.497,
        divergence=predicted(4.497),
        units=tuple(units),
        curve=tuple(CurvePoint(bits=bits / 8, divergence=predicted(bits / 8)) for bits in range(25, 66)),
        uniform=tuple(
            CurvePoint(bits=at, divergence=1.3 * predicted(at), grid=f"{bits} bits, groups of {size}")
            for bits in (3, 4)
            for size, at in ((128, bits + 0.16), (64, bits + 0.31), (32, bits + 0.61))
        ),
        mixed=True,
        tokens=4096,
        seconds=41.2,
    )


def publish(service: Service, job: str) -> None:
    """Leaves two uploads of a job to the hub: one that was refused, then one that is there."""
    for repo, commit, error in (
        ("acme/SmolLM2-135M", None, "hub_refused: The token may not write to this namespace."),
        ("mills/SmolLM2-135M-4bit", "0123456789abcdef0123456789abcdef01234567", None),
    ):
        new = NewPublication(job_id=job, owner_key_id=LOCAL_OWNER, repo=repo, private=True)
        with service.services.database.transaction() as repository:
            repository.add_publication(new)
            taken = repository.take_publication(60)
            assert taken is not None
            repository.end_publication(taken, commit=commit, error=error, retry_seconds=None)


def store_text(service: Service) -> None:
    """Stores a calibration set that has something to be warned of."""
    lines = [json.dumps({"text": f"Ticket {number % 40}: the mill stands still."}) for number in range(400)]
    files = {"file": ("support-tickets.jsonl", "\n".join(lines).encode())}
    service.client.post("/v1/calibration-sets", files=files).raise_for_status()


def upload_model(service: Service, name: str = "internal-chat.tar") -> str:
    """Uploads an archive of the model that lies under the root."""
    folder = service.services.settings.model_roots[0].path / MODEL
    files = {"file": (name, pack(folder_files(folder)))}
    answer = service.client.post("/v1/uploaded-models", files=files).raise_for_status()
    return str(answer.json()["id"])


def warn_of_model(service: Service, model_id: str) -> None:
    """Lets a model come so near to its end that its owner is warned."""
    soon = datetime.now(UTC) + timedelta(hours=5)
    changes = {"expires_at": soon.isoformat()}
    service.client.patch(f"/v1/uploaded-models/{model_id}", json=changes).raise_for_status()
    with service.services.database.transaction() as repository:
        assert repository.warn_of_kept(KeptKind.UPLOADED_MODEL, 86_400) == (model_id,)


def evaluated(perplexity: float, megabytes: int) -> dict[str, Any]:
    """Returns what the evaluation stage would have measured."""
    return {
        "text": "builtin:evaluation",
        "seq_len": 512,
        "tokens": 8176,
        "perplexity_float": 11.63,
        "perplexity_quantized": perplexity,
        "perplexity_ratio": perplexity / 11.63,
        "kl_divergence": 0.9 * math.log(perplexity / 11.6),
        "top1_agreement": 1 - 0.9 * math.log(perplexity / 11.6),
        "bytes_float": 269_060_552,
        "bytes_quantized": megabytes * 1_000_000,
        "peak_rss_bytes": 904_400_896,
        "sample": {
            "prompt": "In one sentence: what does a mill do?",
            "float": "A mill is a machine that grinds grain into flour, using stones, rollers or hammers.",
            "quantized": "A mill is a machine that grinds grain into flour with stones or rollers.",
            "decode": {
                "kernel": "torch_int4pack",
                "device": "cpu",
                "tokens_per_second_float": 21.42,
                "tokens_per_second_quantized": 21.07,
                "resident_bytes": 132_902_144,
            },
        },
        "nf4": {
            "perplexity": 12.52,
            "perplexity_ratio": 12.52 / 11.63,
            "kl_divergence": 0.0688,
            "top1_agreement": 0.9314,
            "bytes": 116_345_472,
            "missing": None,
        },
    }


def fail(service: Service) -> str:
    """Runs a job into an error that a user can do something about."""
    job = start(service, bits=3)
    solve(service, job, 7)
    write_lines(
        service, job, (("child", "factorization failed at the largest damping", {"block": 7, "damp": 0.1}),), "error"
    )
    error = JobError(
        code="numerical_error",
        message="The Hessian of model.layers.7.mlp.down_proj is not positive definite.",
        retryable=False,
        hint="Raise damp_percent, or calibrate on more tokens: this linear has 4,096 inputs and saw 1,024 tokens.",
        stage="quantizing",
        block=7,
        linear="model.layers.7.mlp.down_proj",
        attempt=1,
    )
    with service.services.database.transaction() as repository:
        repository.fail(job.id, job.lease_token, error)
    return job.id


def solve(service: Service, job: Job, blocks: int, scale: float = 1.0) -> None:
    """Writes what the first blocks leave behind; two of their linears are much worse than the others."""
    spread = random.Random(job.id)
    for block in range(blocks):
        rows = [linear_row(block, name, loss * scale, spread) for name, loss in LINEARS]
        service.record(job, rows)
        payload = {
            "block": block,
            "blocks_total": BLOCKS,
            "seconds": 2.3 + spread.random() * 0.4,
            "rss_bytes": int(5.9e8 + 6e6 * math.sin(block / 3) + 3e6 * spread.random()),
            "sha256": "0" * 64,
        }
        event(service, job, "block_quantized", payload)
    write_lines(service, job, tuple(("child", f"block {block} solved", {"seconds": 2.4}) for block in range(blocks)))
    advance(service, job, blocks)


def advance(service: Service, job: Job, blocks: int) -> None:
    """Renews the lease with so many blocks done."""
    eta = datetime.now(UTC) + timedelta(seconds=2.4 * (BLOCKS - blocks))
    progress = JobProgress(
        fraction=0.97 * blocks / BLOCKS,
        blocks_done=blocks,
        blocks_total=BLOCKS,
        eta_at=eta,
        rss_bytes=612_000_000,
        last_linear=f"model.layers.{blocks - 1}.mlp.down_proj",
        last_loss=0.0123,
    )
    with service.services.database.transaction() as repository:
        repository.heartbeat(job.id, job.lease_token, stage=Stage.QUANTIZING, progress=progress)


def linear_row(block: int, name: str, loss: float, spread: random.Random) -> LinearRow:
    """Returns a linear's row."""
    far = (block, name) in {(1, "mlp.down_proj"), (9, "self_attn.v_proj")}
    relative = loss * (1 + block / 40) * math.exp(spread.gauss(0, 0.12)) * (14 if far else 1)
    return LinearRow(
        block=block,
        linear=f"model.layers.{block}.{name}",
        bits=4,
        group_size=32,
        loss=relative * 190,
        relative_loss=relative,
        tokens=16_384,
        damp_percent=0.05,
        seconds=0.31,
    )


def event(service: Service, job: Job, kind: str, payload: Mapping[str, Any]) -> None:
    """Adds a line to the job's history."""
    with service.services.database.transaction() as repository:
        repository.add_event(job.id, job.lease_token, kind, payload)


_numbers: dict[str, int] = {}


def write_lines(
    service: Service, job: Job, lines: tuple[tuple[str, str, Mapping[str, Any]], ...], level: str = "info"
) -> None:
    """Adds lines to the attempt's log."""
    made = []
    for source, text, fields in lines:
        _numbers[job.id] = _numbers.get(job.id, 0) + 1
        made.append(
            LogLine(number=_numbers[job.id], at=datetime.now(UTC), level=level, source=source, text=text, fields=fields)
        )
    with service.services.database.transaction() as repository:
        repository.add_log_lines(job.id, job.lease_token, made)


def small_files(name: str) -> dict[str, bytes]:
    """Returns what lies beside the weights."""
    return {
        "config.json": json.dumps({"architectures": ["LlamaForCausalLM"], "job": name}).encode(),
        "quantize_config.json": json.dumps({"bits": 4, "group_size": 32}).encode(),
        "quantization_report.json": json.dumps({"blocks": BLOCKS}).encode(),
        "tokenizer.json": b"{}",
        "README.md": b"# A quantized model\n",
    }


def stored(service: Service, name: str, content: bytes) -> NewArtifact:
    """Puts bytes into the store."""
    sha256, size_bytes = service.services.artifacts.put_bytes(content)
    return NewArtifact(name=name, sha256=sha256, size_bytes=size_bytes, media_type="application/octet-stream")
