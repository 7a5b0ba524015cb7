"""One installation under test: its settings, its database as seen by the test, its workers, its jobs."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery import Celery
from obstore.store import S3Store

from core.configs import RTNConfig
from store.errors import NotFoundError, StorageUnavailableError
from store.jobs import Job, JobError, JobFilter, NewJob
from store.queue import make_celery
from store.session import Database
from store.sweep import sweep_blobs
from tests.fault.processes import Forked, Zygote
from tests.worker.bench import finished
from tests.worker.celery_worker import environment_of
from worker.services import Services, open_services
from worker.settings import WorkerSettings

PATIENCE_SECONDS = 120.0
OWNER = "key_fault"


@dataclass(slots=True)
class Deployment:
    """services: of the test itself; what it starts may run under changed settings, behind a proxy for example."""

    services: Services
    tiny_model: Path
    zygote: Zygote
    folder: Path
    data_dirs: list[Path] = field(default_factory=list)
    _started: list[Forked] = field(default_factory=list)

    @property
    def settings(self) -> WorkerSettings:
        return self.services.settings

    @property
    def database(self) -> Database:
        return self.services.database

    @property
    def celery(self) -> Celery:
        return make_celery(self.settings)

    def worker(
        self, queue: str = "default", *, faults: str = "", slots: int = 1, clock_offset: float = 0, **changes: object
    ) -> Forked:
        """Starts a worker of one queue class. faults: its plan; the marks it leaves are under `marks(queue)`."""
        marks = self.marks(queue)
        if faults:
            changes |= {"test_faults": faults, "test_faults_dir": marks}
        settings = self.settings.model_copy(update=changes)
        if settings.data_dir not in self.data_dirs:
            self.data_dirs.append(settings.data_dir)
        log = self.folder / f"worker-{queue}.log"
        forked = self.zygote.fork(
            "worker", environment_of(settings), log, queues=queue, slots=slots, clock_offset=clock_offset
        )
        self._started.append(forked)
        return forked

    def api(self, port: int, *, clock_offset: float = 0, variables: Mapping[str, str] | None = None) -> Forked:
        """Starts an API. variables: what its environment says beyond the installation's settings."""
        log = self.folder / "api.log"
        environment = {**environment_of(self.settings), **(variables or {})}
        forked = self.zygote.fork("api", environment, log, port=port, clock_offset=clock_offset)
        self._started.append(forked)
        return forked

    def marks(self, queue: str) -> Path:
        """Returns where the workers of a queue class note the places of their plan that they came by."""
        folder = self.folder / "marks" / queue
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def reached(self, queue: str, point: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Waits until a worker has come to a place of its plan."""
        wait_for((self.marks(queue) / point).exists, f"{point} was not reached", seconds)

    def submit(
        self,
        name: str = "default",
        *,
        queue: str | None = None,
        max_attempts: int = 3,
        deadline_seconds: int | None = None,
        **plan: object,
    ) -> Job:
        """Stores a job about a model of its own. plan: what the fake engine does on it."""
        return self.add(
            self.model(name),
            plan=plan,
            queue=name if queue is None else queue,
            max_attempts=max_attempts,
            deadline_seconds=deadline_seconds,
        )

    def model(self, name: str) -> dict[str, Any]:
        """Returns how a request names a model of its own, which is made where it is not there yet."""
        folder = self.settings.model_roots[0].path / name / "tiny"
        if not folder.exists():
            shutil.copytree(self.tiny_model, folder)
        return {"source": "path", "root": "models", "path": f"{name}/tiny"}

    def add(
        self,
        model: Mapping[str, Any],
        *,
        plan: Mapping[str, object],
        queue: str,
        max_attempts: int = 3,
        deadline_seconds: int | None = None,
        **asked: object,
    ) -> Job:
        """Stores a job about any model. asked: what its request says otherwise."""
        if plan:
            (self.settings.model_roots[0].path / str(model["path"]) / "plan.json").write_text(json.dumps(plan))
        quantization = RTNConfig(group_size=32).to_dict()
        spec = {"model": model, "quantization": quantization, "calibration": None, "targets": [], **asked}
        new = NewJob(
            owner_key_id=OWNER,
            spec=spec,
            calibration_set_id=None,
            queue_class=queue,
            max_attempts=max_attempts,
            deadline_seconds=deadline_seconds,
        )
        with self.database.transaction() as repository:
            return repository.add_job(new)[0]

    def job(self, job_id: str) -> Job:
        """Reads a job."""
        with self.database.reading() as repository:
            return repository.get_job(job_id)

    def wait(self, job: Job, condition: Callable[[Job], bool] = finished, seconds: float = PATIENCE_SECONDS) -> Job:
        """Returns the job once it meets the condition, by default once it is over."""
        deadline = time.monotonic() + seconds
        while True:
            with suppress(StorageUnavailableError):
                found = self.job(job.id)
                if condition(found):
                    return found
            if time.monotonic() > deadline:
                raise AssertionError(f"the job did not get there: {self.job(job.id)}")
            time.sleep(0.05)

    def errors(self, job: Job) -> list[JobError]:
        """Returns why attempts failed."""
        with self.database.reading() as repository:
            return [attempt.error for attempt in repository.list_attempts(job.id) if attempt.error is not None]

    def cancel(self, job: Job) -> None:
        """Asks for a job's end."""
        with self.database.transaction() as repository:
            repository.request_cancel(job.id)

    def solved_blocks(self, job: Job) -> list[int]:
        """Returns every block that an engine solved for a job, in order, again ones again."""
        model = job.spec["model"]
        # The engine keeps its account beside the model, which for one of the hub is in the cache.
        folder = self.settings.model_roots[0].path / model["path"] if "path" in model else self.settings.cache_dir
        return [int(line) for path in folder.rglob(f"solved-{job.id}.txt") for line in path.read_text().split()]

    def work_folder(self, job: Job) -> Path:
        """Returns where the job's files lie on this machine while it is worked."""
        return self.settings.work_root / job.id

    def is_over(self, job_id: str) -> bool:
        """Whether a work folder of this name is nobody's: a live worker on its machine removes it."""
        try:
            return self.job(job_id).state.terminal
        except NotFoundError:
            return True

    def sweep(self) -> None:
        """Removes what nothing refers to, with no grace."""
        sweep_blobs(self.database, self.services.artifacts, older_than_seconds=-1)

    def referenced_blobs(self) -> set[str]:
        """Returns the hashes that rows name."""
        with self.database.reading() as repository:
            jobs = repository.list_jobs(None, JobFilter(), 1000)
            files = {file.sha256 for job in jobs for file in repository.list_artifacts(job.id)}
            texts = {stored.sha256 for stored in repository.list_calibration_sets()}
            models = repository.list_uploaded_models()
            return files | texts | {file.sha256 for model in models for file in repository.list_model_files(model.id)}

    def stored_blobs(self) -> set[str]:
        """Returns the names of all blobs that lie in the object store, a folder or a bucket."""
        url = self.settings.artifacts_url
        if url.startswith("file://"):
            return {path.name for path in Path(url.removeprefix("file://")).rglob("*") if path.is_file()}
        name, _, prefix = url.removeprefix("s3://").partition("/")
        store = S3Store(
            name,
            prefix=prefix,
            endpoint=self.settings.s3_endpoint,
            client_options={"allow_http": True},
            virtual_hosted_style_request=False,
        )
        return {Path(entry["path"]).name for page in store.list() for entry in page}

    def published(self, job: Job) -> dict[str, str]:
        """Returns name to hash of what a job has published."""
        with self.database.reading() as repository:
            return {file.name: file.sha256 for file in repository.list_artifacts(job.id)}

    def end(self) -> None:
        """Ends every worker and API that was started."""
        for forked in self._started:
            forked.signal(signal.SIGCONT)
            forked.signal(signal.SIGKILL)
        for forked in self._started:
            forked.wait()


def wait_for(
    condition: Callable[[], bool], complaint: str | Callable[[], str], seconds: float = PATIENCE_SECONDS
) -> None:
    """Waits until the condition is true; fails with the complaint, asking for it only then where it is to be made."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, complaint if isinstance(complaint, str) else complaint()
        time.sleep(0.02)


@contextmanager
def deployed(settings: WorkerSettings, tiny_model: Path, zygote: Zygote) -> Iterator[Deployment]:
    """Makes an installation of these settings on a new database; at the end nothing of it runs."""
    database = Database(settings.database_url)
    database.upgrade()
    database.dispose()
    services = open_services(settings)
    deployment = Deployment(services, tiny_model, zygote, settings.data_dir.parent)
    try:
        yield deployment
    finally:
        deployment.end()
        services.database.dispose()
        services.waker.close()
