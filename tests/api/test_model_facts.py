"""The memory of model folders: it answers as an inspection would, whatever happens to the files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from api import model_facts
from api.model_facts import ModelFactsCache
from core.errors import ModelRefusedError
from core.preflight.source import ModelFacts, inspect_source
from tests.core.preflight.folders import make_llama


@pytest.fixture
def inspected(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were read, in order; every file counts as settled."""
    folders: list[Path] = []

    def inspect(folder: Path) -> ModelFacts:
        folders.append(folder)
        return inspect_source(folder)

    monkeypatch.setattr(model_facts, "inspect_source", inspect)
    monkeypatch.setattr(model_facts, "SETTLED_SECONDS", -3600.0)
    return folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model."""
    make_llama(tmp_path / "model")
    return tmp_path / "model"


def test_an_unchanged_folder_is_read_once(folder: Path, inspected: list[Path]):
    """The facts are those of an inspection."""
    cache = ModelFactsCache()
    assert cache.of(folder) == cache.of(folder) == inspect_source(folder)
    assert inspected == [folder]


def test_a_change_is_seen(folder: Path, inspected: list[Path]):
    """A touched, an added, a replaced and a removed file, at any depth; a refusal is no memory."""
    cache = ModelFactsCache()
    before = cache.of(folder)
    os.utime(folder / "config.json", (1, 1))
    assert cache.of(folder) == before
    (folder / "deep").mkdir()
    (folder / "deep" / "model.py").write_text("pass")
    with pytest.raises(ModelRefusedError):
        cache.of(folder)
    shutil.rmtree(folder / "deep")
    weights = folder / "model.safetensors"
    content, state = weights.read_bytes(), weights.stat()
    weights.write_bytes(content[:-1] + b"?")
    os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))
    cache.of(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelRefusedError):
        cache.of(folder)
    assert len(inspected) == 5


def test_a_fresh_folder_is_read_again(folder: Path, inspected: list[Path], monkeypatch: pytest.MonkeyPatch):
    """Until the file system's clock can tell one change from the next."""
    monkeypatch.setattr(model_facts, "SETTLED_SECONDS", 3600.0)
    cache = ModelFactsCache()
    cache.of(folder)
    cache.of(folder)
    assert len(inspected) == 2


def test_the_memory_is_bounded(folder: Path, inspected: list[Path], monkeypatch: pytest.MonkeyPatch):
    """The folder that was read first goes first."""
    monkeypatch.setattr(model_facts, "KEPT", 1)
    other = folder.with_name("other")
    shutil.copytree(folder, other)
    cache = ModelFactsCache()
    for each in (folder, other, other, folder):
        cache.of(each)
    assert inspected == [folder, other, folder]
