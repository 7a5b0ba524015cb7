"""R19: a worker of the version before the newest migration on the new schema, and its API with a new worker."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from store.jobs import JobState
from tests.api.service import job_request
from tests.core.preflight.folders import make_llama
from tests.fault.checker import check
from tests.fault.deployment import Deployment, wait_for
from tests.servers import free_port
from tests.worker.celery_worker import COMMAND, environment_of

ROOT = Path(__file__).parents[2]


def git(*arguments: str) -> str:
    """Runs git in this repository; a copy without its history cannot show what an upgrade does, and says so."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (
        f"This test runs the version before the newest migration and needs the repository's history: {done.stderr}"
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def old_version(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout of the commit before the newest migration came."""
    newest = max(path.name for path in (ROOT / "migrations" / "versions").glob("[0-9]*.py"))
    commit = git("log", "--diff-filter=A", "--format=%H", "-1", "--", f"migrations/versions/{newest}")
    folder = tmp_path_factory.mktemp("old") / "bitmill"
    git("worktree", "add", "--detach", str(folder), f"{commit}^" if commit else "HEAD")
    try:
        assert not (folder / "migrations" / "versions" / newest).exists()
        yield folder
    finally:
        git("worktree", "remove", "--force", str(folder))


@contextmanager
def old_process(folder: Path, command: tuple[str, ...], deployment: Deployment) -> Iterator[None]:
    """Runs a program of the old version: the same interpreter and packages, the old code before them."""
    engine = folder / "tests" / "worker" / "fake_engine.py"
    environment = {
        **os.environ,
        **environment_of(deployment.settings.model_copy(update={"test_engine": engine})),
        # What the permission for test engines was called before it became one for all test hooks.
        "BITMILL_ALLOW_TEST_ENGINE": "True",
        "PYTHONPATH": str(folder),
        "OMP_NUM_THREADS": "1",
    }
    with (deployment.folder / "old.log").open("ab") as log:
        popen = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        popen.terminate()
        popen.wait(60)


def test_r19_an_old_worker_on_the_new_schema(deployment: Deployment, old_version: Path, undisturbed: Mapping[str, str]):
    """The migration is made first; workers that are still the old ones work on."""
    job = deployment.submit()
    command = (sys.executable, "-m", *COMMAND)
    with old_process(old_version, command, deployment):
        ended = deployment.wait(job)
    assert (ended.state, ended.failures) == (JobState.SUCCEEDED, 0), ended.error
    deployment.data_dirs.append(deployment.settings.data_dir)
    check(deployment, [job], undisturbed)


def test_r19_a_new_worker_on_the_old_api(deployment: Deployment, old_version: Path):
    """A job that the old API stored is one that the new worker understands."""
    models = deployment.settings.model_roots[0].path
    models.mkdir()
    make_llama(models / "tiny", max_position_embeddings=2048)
    port = free_port()
    command = (sys.executable, "-m", "uvicorn", "--factory", "api.app:create_app", "--port", str(port))
    with old_process(old_version, command, deployment):
        answers: list[httpx.Response] = []
        wait_for(lambda: submitted(port, answers), "the old API did not start")
        assert answers[-1].status_code == 202, answers[-1].text
        with deployment.database.reading() as repository:
            job = repository.get_job(answers[-1].json()["id"])
        deployment.worker()
        ended = deployment.wait(job)
    assert (ended.state, ended.failures) == (JobState.SUCCEEDED, 0), ended.error
    check(deployment, [job], deployment.published(job))


def submitted(port: int, answers: list[httpx.Response]) -> bool:
    """Submits a job; returns whether anybody answered."""
    try:
        answers.append(httpx.post(f"http://127.0.0.1:{port}/v1/jobs", json=job_request(method="rtn"), timeout=30))
    except httpx.TransportError:
        return False
    return True
