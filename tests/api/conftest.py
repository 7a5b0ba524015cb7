"""Fixtures of the API's tests: a real service on SQLite or on both databases, with one tiny model to quantize."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.routes import page
from api.settings import ApiSettings
from store.session import Database
from store.settings import ModelRoot
from tests.api.service import Service, serve
from tests.core.preflight.folders import make_llama

BUILT_PAGE = {
    "index.html": "<!doctype html><title>Bitmill</title>",
    "theme.js": "1;",
    "icon.svg": "<svg/>",
    "assets/index-1a2b3c4d.js": "2;",
    "assets/index-1a2b3c4d.css": "a{}",
}


@pytest.fixture(scope="module", autouse=True)
def built_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A page of one file of each kind stands for the dashboard, which these tests do without."""
    folder = tmp_path_factory.mktemp("static")
    (folder / "assets").mkdir()
    for name, content in BUILT_PAGE.items():
        (folder / name).write_text(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "STATIC", folder)
        yield folder


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A model root with the folder `tiny` in it."""
    root = tmp_path / "models"
    root.mkdir()
    make_llama(root / "tiny", max_position_embeddings=2048)
    return root


@pytest.fixture
def settings(tmp_path: Path, models: Path, sqlite_url: str) -> ApiSettings:
    """Loopback, SQLite, small caps."""
    return make_settings(tmp_path, models, sqlite_url)


def make_settings(tmp_path: Path, models: Path, database_url: str) -> ApiSettings:
    """Returns the settings of a service whose files lie under `tmp_path`."""
    return ApiSettings(
        data_dir=tmp_path / "data",
        cache_dir=tmp_path / "cache",
        database_url=database_url,
        model_roots=(ModelRoot("models", models),),
        max_body_bytes=16_384,
        max_calibration_bytes=200_000,
        max_model_bytes=2_000_000,
    )


@pytest.fixture
def service(settings: ApiSettings) -> Iterator[Service]:
    """A service on SQLite."""
    with serve(settings) as running:
        yield running


@pytest.fixture
def guarded(settings: ApiSettings) -> Iterator[Service]:
    """A service with an operator's key, which its client sends; the other tests' keys go in `headers`."""
    with serve(settings) as running:
        made = running.client.post("/v1/api-keys", json={"name": "operator", "scopes": ["admin"]})
        running.client.headers["Authorization"] = f"Bearer {made.json()['bearer']}"
        yield running


@pytest.fixture
def service_on_each(tmp_path: Path, models: Path, database_url: str) -> Iterator[Service]:
    """A service: the test runs once on SQLite and once on PostgreSQL."""
    with serve(make_settings(tmp_path, models, database_url)) as running:
        yield running


@pytest.fixture(scope="module")
def module_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for those tests of a module that do not mind each other's rows."""
    folder = tmp_path_factory.mktemp("service")
    (folder / "models").mkdir()
    make_llama(folder / "models" / "tiny", max_position_embeddings=2048)
    settings = make_settings(folder, folder / "models", f"sqlite:///{folder}/bitmill.db")
    database = Database(settings.database_url)
    database.upgrade()
    database.dispose()
    with serve(settings) as running:
        yield running
