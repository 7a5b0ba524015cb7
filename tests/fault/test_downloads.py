"""R1, R17 while the model is fetched: the downloader holds, its worker is killed or its job cancelled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from store.jobs import JobState
from tests.fault.checker import check
from tests.fault.deployment import Deployment, wait_for
from tests.fault.processes import job_processes
from tests.worker.fake_hub import REPO, FakeHub, fake_hub
from worker.faults import FaultPoint

PLACE = FaultPoint.DOWNLOADING
MODEL = {"source": "hub", "repo": REPO, "revision": None}


@pytest.fixture
def hub(tiny_model: Path) -> Iterator[FakeHub]:
    """A hub that serves the tiny model."""
    with fake_hub(tiny_model) as served:
        yield served


@pytest.mark.queues("undisturbed", "killed")
def test_r1_a_worker_killed_while_downloading(deployment: Deployment, hub: FakeHub):
    """Its downloader dies with it; another worker fetches the model and ends the job in the same bytes."""
    job = deployment.add(MODEL, plan={}, queue="killed")
    worker = deployment.worker("killed", faults=f"{PLACE}=hold", hub_endpoint=hub.endpoint)
    deployment.reached("killed", PLACE)
    worker.kill()
    wait_for(lambda: not job_processes(deployment.folder), "the downloader outlived its worker")
    assert not hub.downloaded
    deployment.worker("killed", hub_endpoint=hub.endpoint)
    ended = deployment.wait(job)
    assert (ended.state, ended.attempt, ended.failures) == (JobState.SUCCEEDED, 2, 1), ended.error
    calm = deployment.add(MODEL, plan={}, queue="undisturbed")
    deployment.worker("undisturbed", hub_endpoint=hub.endpoint)
    assert deployment.wait(calm).attempt == 1
    check(deployment, [job, calm], deployment.published(calm))


@pytest.mark.queues("cancelled")
def test_r17_a_cancel_while_downloading(deployment: Deployment, hub: FakeHub):
    """A downloader that hangs is ended; the job is cancelled and nothing was fetched."""
    job = deployment.add(MODEL, plan={}, queue="cancelled")
    deployment.worker("cancelled", faults=f"{PLACE}=hold", hub_endpoint=hub.endpoint)
    deployment.reached("cancelled", PLACE)
    deployment.cancel(job)
    ended = deployment.wait(job)
    assert (ended.state, ended.attempt) == (JobState.CANCELLED, 1)
    wait_for(lambda: not deployment.work_folder(job).exists(), "the work folder is left")
    assert not hub.downloaded
    check(deployment, [job], {})
