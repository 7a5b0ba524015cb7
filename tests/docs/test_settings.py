"""docs/operations/settings.md is the one table of settings: complete, and with the defaults that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from api.settings import ApiSettings
from cli.settings import client_settings
from core.calibration.hub import DEFAULT_ENDPOINT
from store.settings import StoreSettings
from tests.docs.conftest import ROOT
from tests.docs.pages import PAGES, variables
from worker.settings import WorkerSettings

TABLE = ROOT / "docs" / "operations" / "settings.md"
ROW = re.compile(r"^\| `(BITMILL_\w+)` \| (.+?) \| (.+?) \| .+ \|$", re.MULTILINE)
# Refused in production; see worker.settings.
TEST_HOOKS = {"test_engine", "test_faults", "test_faults_dir", "allow_test_hooks"}
# Of the commands and examples; of docker-compose.yml; of curl.sh; of `make dashboard-picture`.
NO_FIELDS = {"BITMILL_URL", "BITMILL_API_KEY", "BITMILL_MODELS", "BITMILL_MODEL", "BITMILL_PICTURE"}
# What is worked out from other settings, in words.
WORDS = {
    "database_url": "SQLite in the data directory",
    "artifacts_url": "`file://` in the data directory",
    "model_roots": "cache and data directory",
    "secret_key": "one is made in the data directory",
    "share_checkpoints": "`true` with a bucket",
}


def rows() -> dict[str, tuple[str, str]]:
    """Returns default and readers of each variable, as the page has them."""
    return {name: (default, readers) for name, default, readers in ROW.findall(TABLE.read_text())}


def variable(field: str) -> str:
    return f"BITMILL_{field.upper()}"


def shown_default(settings: type[BaseSettings], field: str) -> str:
    """Returns how the page must write a field's default."""
    if field in WORDS:
        return WORDS[field]
    value = settings.model_fields[field].default
    if value is None:
        return "none"
    if isinstance(value, tuple):
        value = ",".join(value)
    if isinstance(value, bool):
        value = str(value).lower()
    return (
        f"`{value:g}`"
        if isinstance(value, float) and value < 1000
        else f"`{int(value) if isinstance(value, float) else value}`"
    )


@pytest.mark.parametrize(
    ("settings", "reader"), [(StoreSettings, "all"), (ApiSettings, "API"), (WorkerSettings, "worker")], ids=str
)
def test_every_setting_has_its_row(settings: type[BaseSettings], reader: str):
    """With its default, under the process that reads it."""
    shown = rows()
    inherited = set() if settings is StoreSettings else set(StoreSettings.model_fields)
    for field in set(settings.model_fields) - inherited - TEST_HOOKS:
        default, readers = shown[variable(field)]
        assert default == shown_default(settings, field), field
        assert reader in readers, field


def test_clients_defaults(monkeypatch: pytest.MonkeyPatch):
    """The two variables of the commands, which are no fields."""
    monkeypatch.delenv("BITMILL_URL", raising=False)
    assert rows()["BITMILL_URL"][0] == f"`{client_settings().url}`"
    assert rows()["BITMILL_HUB_ENDPOINT"][0] == f"`{DEFAULT_ENDPOINT}`"


FILES = [*PAGES, *(ROOT / name for name in ("docker-compose.yml", "Dockerfile", "CHANGELOG.md", "examples/curl.sh"))]


@pytest.mark.parametrize("page", FILES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_variable_that_is_named_is_read(page: Path):
    """No page tells of a variable that nothing looks at."""
    fields = {variable(field) for kind in (ApiSettings, WorkerSettings) for field in kind.model_fields}
    assert variables(page) <= fields | NO_FIELDS
