"""One running service with a tiny model for all tests of the commands that talk to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.kernels import with_kernels
from tests.ops.service import RunningService, run_bitmill, running_service
from tests.worker.models import write_tiny_llama

Bitmill = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests, with compiled kernels in it."""
    return with_kernels(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one allowed root of the service, with the model `tiny` in it."""
    root = tmp_path_factory.mktemp("models")
    write_tiny_llama(root / "tiny", blocks=4, hidden=64)
    return root


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory, models: Path, cache_dir: Path) -> Iterator[RunningService]:
    """`bitmill up`, ready."""
    with running_service(tmp_path_factory.mktemp("service") / "data", models, cache_dir) as running:
        yield running


@pytest.fixture(scope="package")
def at_service(service: RunningService) -> Bitmill:
    """Runs a command that finds the service by BITMILL_URL."""

    def run(*arguments: str, timeout: float = 180) -> CompletedProcess[str]:
        return run_bitmill(*arguments, timeout=timeout, BITMILL_URL=service.url)

    return run


@pytest.fixture(scope="session")
def local(cache_dir: Path) -> Bitmill:
    """Runs a command that needs no service."""

    def run(*arguments: str, timeout: float = 180) -> CompletedProcess[str]:
        return run_bitmill(*arguments, timeout=timeout, NUMBA_CACHE_DIR=str(cache_dir / "numba"))

    return run
