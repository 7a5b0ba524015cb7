"""Fixtures of the worker's tests: services on SQLite and local folders, a tiny model, a job that names it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from store.session import Database
from store.settings import ModelRoot
from tests.worker.bench import FAKE_ENGINE, Bench
from tests.worker.models import write_tiny_llama
from worker.services import open_services
from worker.settings import WorkerSettings


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama; copy it before changing it."""
    return write_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    """Quick times and the fake engine."""
    return WorkerSettings(
        data_dir=tmp_path / "data",
        cache_dir=tmp_path / "cache",
        model_roots=(ModelRoot("models", tmp_path / "models"),),
        lease_seconds=8,
        fence_seconds=6,
        heartbeat_seconds=0.5,
        poll_seconds=0.1,
        sweep_seconds=0.2,
        stop_grace_seconds=2,
        kill_grace_seconds=1,
        drain_seconds=5,
        retry_base_seconds=0,
        upload_tries=1,
        test_engine=FAKE_ENGINE,
        allow_test_hooks=True,
    )


@pytest.fixture
def bench(settings: WorkerSettings, tiny_model: Path) -> Iterator[Bench]:
    """Services whose database is new, and helpers around them."""
    database = Database(settings.database_url)
    database.upgrade()
    database.dispose()
    services = open_services(settings)
    yield Bench(services, tiny_model)
    services.database.dispose()
