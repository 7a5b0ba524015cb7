"""What worker tests do over and over: submit a job, work it, wait for a state, look for processes left behind."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.configs import RTNConfig
from store.jobs import Job, JobProgress, JobState, NewJob, Stage
from worker.lease import Lease
from worker.observer import FETCH_SHARE
from worker.services import Services
from worker.tasks import run_next

FAKE_ENGINE = Path(__file__).with_name("fake_engine.py")
OWNER = "key_test"


@dataclass(frozen=True, slots=True)
class Bench:
    """Services under test and the model that jobs are about."""

    services: Services
    tiny_model: Path

    def model(self, name: str = "tiny", **plan: object) -> Path:
        """Puts a copy of the tiny model under the root; plan: how the fake engine misbehaves on it."""
        folder = self.services.settings.model_roots[0].path / name
        if not folder.exists():
            shutil.copytree(self.tiny_model, folder)
        if plan:
            (folder / "plan.json").write_text(json.dumps(plan))
        return folder

    def submit(self, *, max_attempts: int = 3, deadline_seconds: int | None = None, **plan: object) -> Job:
        """Stores a job about a copy of the tiny model."""
        self.model(**plan)
        model = {"source": "path", "root": "models", "path": "tiny"}
        return self.add(model, max_attempts=max_attempts, deadline_seconds=deadline_seconds)

    def add(
        self,
        model: Mapping[str, Any],
        *,
        max_attempts: int = 3,
        deadline_seconds: int | None = None,
        **asked: object,
    ) -> Job:
        """Stores a job about any model. asked: what its request says otherwise."""
        quantization = RTNConfig(group_size=32).to_dict()
        spec = {"model": model, "quantization": quantization, "calibration": None, "targets": [], **asked}
        limits = {"max_attempts": max_attempts, "deadline_seconds": deadline_seconds}
        new = NewJob(owner_key_id=OWNER, spec=spec, calibration_set_id=None, **limits)
        with self.services.database.transaction() as repository:
            return repository.add_job(new)[0]

    def work(self) -> str | None:
        """Works the next job to the end of one attempt."""
        return run_next(self.services, "default")

    def work_behind(self) -> threading.Thread:
        """Works the next job in a thread."""
        thread = threading.Thread(target=self.work)
        thread.start()
        return thread

    def job(self, job_id: str) -> Job:
        """Reads a job."""
        with self.services.database.reading() as repository:
            return repository.get_job(job_id)

    def kinds(self, job_id: str) -> list[str]:
        """Returns the kinds of a job's events, after checking that their numbers have no gap."""
        with self.services.database.reading() as repository:
            events = repository.list_events(job_id)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        return [event.kind for event in events]

    def wait(self, job_id: str, condition: Callable[[Job], bool], seconds: float = 120) -> Job:
        """Returns the job once it meets the condition."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            job = self.job(job_id)
            if condition(job):
                return job
            time.sleep(0.05)
        raise AssertionError(f"the job did not get there: {self.job(job_id)}")

    def child(self) -> psutil.Process:
        """Returns the running child of this process."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            children = worker_children()
            if children:
                return children[0]
            time.sleep(0.02)
        raise AssertionError("no child was started")

    @contextmanager
    def locked_database(self) -> Iterator[None]:
        """Holds the writer's lock of the SQLite database, so that no write gets through."""
        path = self.services.settings.database_url.removeprefix("sqlite:///")
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")
            connection.close()

    def folder_left(self, job_id: str) -> bool:
        """Whether the job's work folder is still there."""
        return (self.services.settings.work_root / job_id).exists()


def worker_children(parent: psutil.Process | None = None) -> list[psutil.Process]:
    """Returns the children that run one of the worker's child modules."""
    return [process for process in (parent or psutil.Process()).children(recursive=True) if is_child(process)]


def is_child(process: psutil.Process) -> bool:
    """Whether a process runs one of the worker's child modules."""
    try:
        return bool({"worker.child", "worker.download"} & set(process.cmdline()))
    except psutil.NoSuchProcess:
        return False


def finished(job: Job) -> bool:
    """Whether nothing happens to the job any more."""
    return job.state.terminal


def quantizing(blocks: int) -> Callable[[Job], bool]:
    """Returns the condition that so many blocks are recorded while the job runs."""
    return lambda job: job.state is JobState.RUNNING and job.progress.blocks_done >= blocks


@contextmanager
def watched_progress() -> Iterator[list[tuple[Stage, JobProgress]]]:
    """Collects what the jobs of this process show, with the stage that each was shown in."""
    shown: list[tuple[Stage, JobProgress]] = []
    advance = Lease.advance

    def note(lease: Lease, progress: JobProgress) -> None:
        shown.append((lease.snapshot.stage, progress))
        advance(lease, progress)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lease, "advance", note)
        yield shown


def fetch_was_shown(shown: list[tuple[Stage, JobProgress]]) -> bool:
    """Whether a fetch filled its part of the bar, and the run the rest of it, without a step back."""
    fractions = [progress.fraction for _, progress in shown]
    fetched = [progress.fraction for stage, progress in shown if stage is Stage.DOWNLOADING]
    return fractions == sorted(fractions) and fetched[-1:] == [FETCH_SHARE] and fractions[-1] > FETCH_SHARE
