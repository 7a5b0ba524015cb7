"""The named places: a plan is read or refused, a real job passes each place, and a place does what the plan says."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from core.checkpoint.manifest import FAULT_POINTS
from core.configs import RTNConfig
from core.evaluation.evidence import FAULT_POINT
from store.jobs import JobState
from tests.kernels import with_kernels
from tests.worker.bench import OWNER, Bench
from tests.worker.fake_hub import REPO, fake_hub
from tests.worker.uploads import put_model, source_of_upload
from worker.faults import FaultPlanError, FaultPoint, Faults, read_plan
from worker.settings import WorkerSettings


def test_every_place_is_passed_by_a_job(bench: Bench, tmp_path: Path):
    """Two real jobs, evaluated and with shared checkpoints, come by each place: on a hub's model and on an upload."""
    marks = tmp_path / "marks"
    marks.mkdir()
    with_kernels(bench.services.settings.cache_dir)
    folder = shutil.copytree(bench.tiny_model, tmp_path / "hub")
    with fake_hub(folder) as hub:
        plan = ",".join(f"{point}=note" for point in FaultPoint)
        settings = bench.services.settings.model_copy(
            update={
                "test_faults": plan,
                "test_faults_dir": marks,
                "share_checkpoints": True,
                "hub_endpoint": hub.endpoint,
                "test_engine": None,
            }
        )
        services = replace(bench.services, settings=settings, faults=Faults(plan, marks))
        watched = Bench(services, bench.tiny_model)
        asked = {"quantization": RTNConfig(bits=8, group_size=32).to_dict(), "evaluate": True, "evaluate_nf4": False}
        uploaded = put_model(services.database, services.artifacts, bench.tiny_model, OWNER)
        sources = ({"source": "hub", "repo": REPO, "revision": None}, source_of_upload(uploaded))
        for job_id in [watched.add(source, **asked).id for source in sources]:
            watched.work()
            assert watched.job(job_id).state is JobState.SUCCEEDED, watched.job(job_id).error
    assert {path.name for path in marks.iterdir()} == set(FaultPoint)


def test_the_engines_places_are_among_them():
    """What the engine names, a plan can name."""
    assert {*FAULT_POINTS, FAULT_POINT} <= set(FaultPoint)


def test_the_nth_time_is_meant(tmp_path: Path):
    """A fault happens at its time and not before or after; each place that is in the plan leaves its mark."""
    faults = Faults("uploading@2=enospc", tmp_path)
    faults.hit("uploading")
    faults.hit("uploaded")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="No space") as caught:
        faults.hit("uploading")
    assert caught.value.errno == errno.ENOSPC
    faults.hit("uploading")
    assert [path.name for path in tmp_path.iterdir()] == ["uploading"]


@pytest.mark.parametrize("plan", ["nowhere=kill", "uploaded=explode", "uploaded@0=kill", "uploaded", "=kill"])
def test_a_plan_that_cannot_be_read_is_refused(plan: str):
    """The message says which part and what there is."""
    with pytest.raises(FaultPlanError, match="block_synced"):
        read_plan(plan)


def test_a_plan_needs_its_permission():
    """No environment variable alone can kill a worker in production."""
    with pytest.raises(ValidationError, match="allow_test_hooks"):
        WorkerSettings(test_faults="uploaded=kill")
    with pytest.raises(ValidationError, match="no fault"):
        WorkerSettings(test_faults="nonsense", allow_test_hooks=True)
