"""Fixtures of the fault catalogue: installations of both kinds, a zygote for their workers, the undisturbed bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from core.checkpoint.durable import file_sha256
from core.events import Event
from store.settings import ModelRoot
from tests.fault.deployment import Deployment, deployed
from tests.fault.processes import Zygote, zygote
from tests.worker import fake_engine
from tests.worker.bench import FAKE_ENGINE
from tests.worker.models import write_tiny_llama
from worker.settings import WorkerSettings


@pytest.fixture(scope="session", name="zygote")
def _zygote() -> Iterator[Zygote]:
    with zygote() as started:
        yield started


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama; copy it before changing it."""
    return write_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Name to hash of every file of an artifact that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")

    def ignore(_: Event | str) -> None:
        """Nobody listens."""

    fake_engine.quantize_checkpoint(
        tiny_model,
        folder / "artifact",
        None,
        None,
        work_dir=folder / "work",
        on_event=ignore,
        should_stop=lambda: False,
        on_fault=ignore,
        provenance={"model": "tiny"},
    )
    for account in tiny_model.glob("solved-*"):
        account.unlink()
    return {path.name: file_sha256(path) for path in (folder / "artifact").iterdir()}


def fault_settings(folder: Path, **changes: object) -> WorkerSettings:
    """Returns settings under a folder: the fake engine, and times an eighth of the real ones."""
    return WorkerSettings(
        data_dir=folder / "data",
        cache_dir=folder / "cache",
        model_roots=(ModelRoot("models", folder / "models"),),
        lease_seconds=8,
        fence_seconds=6,
        heartbeat_seconds=0.5,
        poll_seconds=0.1,
        sweep_seconds=0.3,
        stop_grace_seconds=3,
        kill_grace_seconds=1,
        drain_seconds=10,
        retry_base_seconds=0,
        upload_tries=2,
        share_checkpoints=True,
        test_engine=FAKE_ENGINE,
        allow_test_hooks=True,
        **changes,
    )


Deploy = Callable[..., Deployment]


@pytest.fixture
def deploy(tmp_path: Path, tiny_model: Path, zygote: Zygote) -> Iterator[Deploy]:
    """Makes an installation on SQLite and the filesystem broker, or on what the changed settings name."""
    with ExitStack() as stack:
        yield lambda **changes: stack.enter_context(deployed(fault_settings(tmp_path, **changes), tiny_model, zygote))


@pytest.fixture(params=["embedded", "scaled"])
def deployment(request: pytest.FixtureRequest, deploy: Deploy) -> Deployment:
    """An installation: the test runs once on SQLite with the filesystem broker, once on PostgreSQL with Redis."""
    queues = tuple(getattr(request.node.get_closest_marker("queues"), "args", ("default",)))
    if request.param == "embedded":
        return deploy(queue_classes=queues)
    return deploy(
        queue_classes=queues,
        database_url=request.getfixturevalue("postgres_url"),
        broker_url=request.getfixturevalue("redis_url"),
    )
