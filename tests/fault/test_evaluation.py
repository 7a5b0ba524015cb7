"""R1 while an artifact is evaluated, by the real engine: what is finished is not made again."""

from __future__ import annotations

from pathlib import Path

from core.checkpoint.checksums import SUMS_FILE
from core.checkpoint.durable import file_sha256
from core.configs import RTNConfig
from core.formats.model_card import CARD_FILE
from store.jobs import Job, JobState
from tests.fault.checker import check
from tests.fault.deployment import Deployment
from tests.kernels import with_kernels
from worker.faults import FaultPoint


def test_r1_a_worker_killed_while_evaluating(deployment: Deployment):
    """Once the artifact is measured, and again between its card and its hashes: a third worker publishes it."""
    with_kernels(deployment.settings.cache_dir)
    asked = {"quantization": RTNConfig(bits=8, group_size=32).to_dict(), "evaluate": True, "evaluate_nf4": False}
    job = deployment.add(deployment.model("real"), plan={}, queue="default", max_attempts=6, **asked)
    artifact = deployment.work_folder(job) / "artifact"
    held: dict[FaultPoint, dict[str, str]] = {}
    killed: list[int] = []
    for point in (FaultPoint.EVALUATED, FaultPoint.CARD_WRITTEN):
        worker = deployment.worker(test_engine=None, faults=f"{point}=hold")
        deployment.reached("default", point)
        held[point] = hashes(artifact)
        killed.append(deployment.job(job.id).attempt)
        worker.kill()
    deployment.worker(test_engine=None)
    ended = deployment.wait(job)
    assert ended.state is JobState.SUCCEEDED, ended.error
    assert max(stages(deployment, job, "quantizing")) <= killed[0]
    assert {*killed, ended.attempt} <= set(stages(deployment, job, "evaluating"))
    published = deployment.published(job)
    first, second = held[FaultPoint.EVALUATED], held[FaultPoint.CARD_WRITTEN]
    assert without(published, SUMS_FILE) == without(second, SUMS_FILE)
    assert without(second, CARD_FILE) == without(first, CARD_FILE)
    assert second[CARD_FILE] != first[CARD_FILE]
    assert ended.evaluation is not None
    check(deployment, [job], published)


def hashes(folder: Path) -> dict[str, str]:
    """Returns the hash of every file by relative path."""
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in folder.rglob("*") if path.is_file()}


def without(files: dict[str, str], name: str) -> dict[str, str]:
    """Returns the files but one."""
    return {file: sha256 for file, sha256 in files.items() if file != name}


def stages(deployment: Deployment, job: Job, stage: str) -> list[int]:
    """Returns the attempts in which a stage began."""
    with deployment.database.reading() as repository:
        events = repository.list_events(job.id, limit=1000)
    begun = [event for event in events if event.kind == "stage_started" and event.payload["stage"] == stage]
    return [event.attempt for event in begun]
