"""Values that the repository's tests store."""

from __future__ import annotations

from store.jobs import Job, JobError, NewArtifact, NewJob
from store.session import Database
from store.workers import Capability, WorkerFacts

SPEC = {
    "model": {"source": "path", "path": "models/tiny", "root": "data"},
    "quantization": {"schema_version": 1, "method": "gptq", "bits": 4},
    "calibration": {"set": "builtin"},
}
WORKER = "wrk_test"
BROKEN = JobError(code="out_of_memory", message="The worker ran out of memory.", retryable=True)
FILES = (
    NewArtifact(name="config.json", sha256="a" * 64, size_bytes=10, media_type="application/json"),
    NewArtifact(name="model.safetensors", sha256="b" * 64, size_bytes=1000, media_type="application/octet-stream"),
)


def worker_facts(worker_id: str = WORKER, **changes: object) -> WorkerFacts:
    """Returns what a small worker says of itself, but for the given fields."""
    facts: dict[str, object] = {
        "id": worker_id,
        "hostname": "host",
        "pid": 1,
        "engine_version": "0",
        "device_name": "a processor",
        "capability": Capability(device="cpu", memory_bytes=8_000_000_000),
        "slots": 2,
        "queue_classes": ("default",),
        **changes,
    }
    return WorkerFacts(**facts)  # type: ignore[arg-type]  # checked by the dataclass's users


def new_job(owner: str = "key_a", **options: object) -> NewJob:
    """Returns a submit that differs from the usual one in the given fields."""
    fields: dict[str, object] = {"owner_key_id": owner, "spec": SPEC, "calibration_set_id": None, **options}
    return NewJob(**fields)  # type: ignore[arg-type]  # checked by the dataclass's users


def submit(database: Database, owner: str = "key_a", **options: object) -> Job:
    """Stores a job in a transaction of its own."""
    with database.transaction() as repository:
        return repository.add_job(new_job(owner, **options))[0]


def claim(database: Database, worker_id: str = WORKER, *, lease_seconds: float = 60) -> Job:
    """Claims the best job, which must exist. lease_seconds: negative for a lease that has run out already."""
    with database.transaction() as repository:
        job = repository.claim(worker_id, "default", lease_seconds)
    assert job is not None
    return job


def submit_and_claim(database: Database, owner: str = "key_a", **options: object) -> Job:
    """Stores a job and claims it."""
    submit(database, owner, **options)
    return claim(database)
