"""What the environment may say, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from store.settings import ModelRoot, StoreSettings, settings_from_env


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in StoreSettings.model_fields:
        monkeypatch.delenv(f"BITMILL_{name.upper()}", raising=False)


def test_defaults_lie_in_the_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With only the data folder set, everything that must survive lies in it."""
    monkeypatch.setenv("BITMILL_DATA_DIR", str(tmp_path))
    settings = settings_from_env()
    assert settings.database_url == f"sqlite:///{tmp_path}/bitmill.db"
    assert settings.artifacts_url == f"file://{tmp_path}/artifacts"
    assert settings.broker_url == "filesystem://"
    assert settings.broker_dir == tmp_path / "broker"
    assert [root.name for root in settings.model_roots] == ["cache", "data"]
    assert settings.model_roots[1].path == tmp_path
    assert settings.queue_classes == ("default",)


def test_home_is_expanded_and_paths_are_absolute() -> None:
    """Folders may be given relative to the home or the working folder."""
    settings = StoreSettings(data_dir=Path("~/data"), cache_dir=Path("cache"))
    assert settings.data_dir == Path.home() / "data"
    assert settings.cache_dir == Path.cwd() / "cache"


def test_roots_and_classes_are_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Roots are separated like PATH, with or without a name; queue classes by commas."""
    monkeypatch.setenv("BITMILL_MODEL_ROOTS", "/srv/models:shared=/mnt/m")
    monkeypatch.setenv("BITMILL_QUEUE_CLASSES", "default, gpu")
    settings = settings_from_env()
    assert settings.model_roots == (ModelRoot("models", Path("/srv/models")), ModelRoot("shared", Path("/mnt/m")))
    assert settings.queue_classes == ("default", "gpu")


def test_broker_folder_can_be_named() -> None:
    """A path in the broker's URL is where the messages lie."""
    assert StoreSettings(broker_url="filesystem:///var/spool/bitmill").broker_dir == Path("/var/spool/bitmill")


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("BITMILL_DATABASE_URL", "mysql://localhost/x", "database_url"),
        ("BITMILL_DATABASE_URL", "postgresql://localhost/x", "database_url"),
        ("BITMILL_BROKER_URL", "amqp://localhost", "broker_url"),
        ("BITMILL_ARTIFACTS_URL", "/srv/artifacts", "artifacts_url"),
        ("BITMILL_MODEL_ROOTS", "/a/models:/b/models", "model_roots"),
        ("BITMILL_QUEUE_CLASSES", "default,,gpu", "queue_classes"),
        ("BITMILL_QUEUE_CLASSES", "../up", "queue_classes"),
    ],
)
def test_unusable_values_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, named: str
) -> None:
    """A value that cannot work stops the program at its start and names the field."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValidationError, match=named):
        settings_from_env()
