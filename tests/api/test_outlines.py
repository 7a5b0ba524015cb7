"""Outlines of uploaded models: made once, shared by processes, bounded, and nothing is left of those that died."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from api import outlines
from api.outlines import UNUSED_SECONDS, Outlines
from core.preflight.source import inspect_source
from store.artifacts import ArtifactStore
from store.models import ModelFile, content_sha256
from tests.core.preflight.folders import make_llama, shard
from tests.worker.uploads import put_files


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(f"file://{tmp_path}/artifacts")


@pytest.fixture
def kept(store: ArtifactStore, tmp_path: Path) -> Outlines:
    return Outlines(store, tmp_path / "outlines")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = make_llama(tmp_path / "tiny")
    shard(model)
    return model


def age(path: Path, seconds: float) -> None:
    """Makes a folder look unused for so long."""
    at = time.time() - seconds
    os.utime(path, (at, at))


def test_an_outline_is_what_preflight_reads(kept: Outlines, store: ArtifactStore, folder: Path):
    """Made once, of ranges; the second time nothing is asked of the store."""
    files = put_files(store, folder)
    sha256 = content_sha256(files)
    place = kept.of(sha256, files)
    assert inspect_source(place) == inspect_source(folder)
    for file in files:
        store.delete(file.sha256)
    assert kept.of(sha256, files) == place


def test_several_at_once_make_one(kept: Outlines, store: ArtifactStore, folder: Path, tmp_path: Path):
    """Whoever comes second finds the same; no draft is left."""
    files = put_files(store, folder)
    other = Outlines(store, tmp_path / "outlines")
    places: list[Path] = []
    threads = [
        threading.Thread(target=lambda one=one: places.append(one.of(content_sha256(files), files)))
        for one in (kept, other, kept, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(places) == len(threads)
    assert [path.name for path in (tmp_path / "outlines").iterdir()] == [content_sha256(files)]


def test_a_store_that_fails_leaves_no_half_outline(kept: Outlines, folder: Path, tmp_path: Path):
    absent = ModelFile(name="config.json", sha256="0" * 64, size_bytes=10)
    with pytest.raises(Exception, match="no blob"):
        kept.of("f" * 64, [absent])
    assert list((tmp_path / "outlines").iterdir()) == []


def test_the_oldest_go_and_a_dead_process_leaves_nothing(
    kept: Outlines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Unused for an hour and beyond the number that is kept; a fresh one or a fresh draft is somebody's."""
    monkeypatch.setattr(outlines, "KEPT", 2)
    place = tmp_path / "outlines"
    for number, seconds in enumerate((3, 2, 1)):
        (place / f"{number}").mkdir(parents=True)
        age(place / f"{number}", seconds * UNUSED_SECONDS)
    for name in ("draft-old", "draft-new"):
        (place / name).mkdir()
        (place / name / "config.json").write_text("{}")
    age(place / "draft-old", 2 * UNUSED_SECONDS)
    with kept.draft() as draft:
        assert {path.name for path in place.iterdir()} == {"1", "2", "draft-new", draft.name}
    assert not draft.exists()
