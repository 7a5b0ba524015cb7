"""The worker's cache of uploaded models: whole files only, one fetch per machine, bounded, and nothing in use goes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from core.errors import InsufficientResourcesError
from core.preflight import resources
from store.artifacts import ArtifactStore
from store.errors import BlobCorruptError, NotFoundError
from store.models import ModelFile, content_sha256
from tests.conftest import Bucket
from worker.model_cache import FetchWatch, ModelCache

SIZE = 3_000_000
PLENTY = 1 << 40


class StopError(Exception):
    """What a lease raises after a cancel."""


class Bench:
    """A store with models of two files each, and a cache."""

    def __init__(self, store: ArtifactStore, folder: Path, max_bytes: int = PLENTY) -> None:
        self.store = store
        self.folder = folder
        self.cache = ModelCache(store, folder, max_bytes)
        self.fetched: list[str] = []
        self.counted: list[tuple[int, int]] = []

    def model(self, seed: int) -> tuple[str, tuple[ModelFile, ...]]:
        """Stores a model; two of them share their second file."""
        contents = {"a.safetensors": bytes([seed]) * SIZE, "config.json": b"{}"}
        files = []
        for name, content in contents.items():
            sha256, size_bytes = self.store.put_bytes(content)
            files.append(ModelFile(name=name, sha256=sha256, size_bytes=size_bytes))
        return content_sha256(files), tuple(files)

    def hold(self, model: tuple[str, Sequence[ModelFile]], stack: ExitStack) -> Path:
        """Holds a model as long as the stack does."""
        return stack.enter_context(self.cache.held(*model, self.watch(lambda file: self.fetched.append(file.name))))

    def watch(self, on_file: Callable[[ModelFile], None]) -> FetchWatch:
        """Returns who keeps the bytes that have come."""
        return FetchWatch(go_on=self.go_on, on_file=on_file, on_bytes=lambda *counted: self.counted.append(counted))

    def use(self, model: tuple[str, Sequence[ModelFile]]) -> Path:
        """Holds a model for a moment, after looking at its bytes."""
        with ExitStack() as stack:
            place = self.hold(model, stack)
            for file in model[1]:
                assert (place / file.name).stat().st_size == file.size_bytes
            assert len(list(place.iterdir())) == len(model[1])
        return place

    def go_on(self) -> None:
        """Stops nothing."""

    def kept(self) -> set[str]:
        """Returns the models that are there."""
        return {path.name for path in self.folder.iterdir() if path.is_dir()}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(f"file://{tmp_path}/artifacts")


@pytest.fixture
def bench(store: ArtifactStore, tmp_path: Path) -> Bench:
    return Bench(store, tmp_path / "cache")


def test_a_model_is_fetched_once(bench: Bench):
    """The second time nothing is asked of the store."""
    model = bench.model(1)
    place = bench.use(model)
    assert bench.fetched == ["a.safetensors", "config.json"]
    assert (place / "a.safetensors").read_bytes() == b"\1" * SIZE
    bench.store.delete(model[1][0].sha256)
    assert bench.use(model) == place
    assert len(bench.fetched) == 2


def test_the_bytes_that_come_are_counted(bench: Bench):
    """Of those that were missing: what is there already is no part of this fetch."""
    model = bench.model(1)
    bench.use((model[0], model[1][1:]))
    assert bench.counted == [(2, 2)]
    bench.counted.clear()
    bench.use(model)
    counts = [done for done, _ in bench.counted]
    assert counts == sorted(counts)
    assert len(counts) > 1  # pieces, not files
    assert bench.counted[-1] == (SIZE, SIZE)
    assert {total for _, total in bench.counted} == {SIZE}
    bench.counted.clear()
    bench.use(model)
    assert bench.counted == []


def test_a_bucket_s_model_is_fetched(bucket: Bucket, tmp_path: Path):
    bench = Bench(ArtifactStore(bucket.url, s3_endpoint=bucket.endpoint), tmp_path / "cache")
    assert (bench.use(bench.model(3)) / "a.safetensors").read_bytes() == b"\3" * SIZE


def test_a_stop_comes_between_two_pieces_and_leaves_whole_files_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """What was begun is gone; the next attempt fetches only what is not there."""
    model = bench.model(1)
    bench.use((model[0], model[1][1:]))

    def stop_in_the_file() -> None:
        if "a.safetensors" in bench.fetched:
            raise StopError

    monkeypatch.setattr(bench, "go_on", stop_in_the_file)
    with pytest.raises(StopError):
        bench.use(model)
    assert [path.name for path in (bench.folder / model[0]).iterdir()] == ["config.json"]
    monkeypatch.undo()
    torn = bench.folder / model[0] / "a.safetensors.0.partial"
    torn.write_bytes(b"of a process that was killed")
    bench.fetched.clear()
    bench.use(model)
    assert bench.fetched == ["a.safetensors"]


def test_two_at_once_fetch_it_once(bench: Bench):
    """The second waits for the first, and then both read."""
    model = bench.model(1)
    first_is_in, go = threading.Event(), threading.Event()
    places: list[Path] = []

    def slow(_: ModelFile) -> None:
        first_is_in.set()
        assert go.wait(60)

    def first() -> None:
        with bench.cache.held(*model, bench.watch(slow)) as place:
            places.append(place)

    def second() -> None:
        places.append(bench.use(model))

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert first_is_in.wait(60)
    threads[1].start()
    go.set()
    for thread in threads:
        thread.join(60)
    assert len(places) == 2
    assert bench.fetched == []


def test_who_waits_for_another_fetch_can_be_stopped(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    model = bench.model(1)
    tries: list[int] = []

    def stop_at_the_third() -> None:
        tries.append(1)
        if len(tries) > 2:
            raise StopError

    def meanwhile(_: ModelFile) -> None:
        monkeypatch.setattr(bench, "go_on", stop_at_the_third)
        with pytest.raises(StopError):
            bench.use(model)
        monkeypatch.undo()

    with bench.cache.held(*model, bench.watch(meanwhile)) as place:
        assert (place / "config.json").exists()
    assert len(tries) >= 3


def test_the_cache_keeps_within_its_size(store: ArtifactStore, tmp_path: Path):
    """Those that were used longest ago go first; one in use stays, whatever the size; what went is fetched again."""
    bench = Bench(store, tmp_path / "cache", 2 * SIZE + 100)
    models = [bench.model(seed) for seed in range(4)]
    for age, model in enumerate(models[:2]):
        os.utime(bench.use(model), (age, age))
    bench.use(models[2])
    assert bench.kept() == {models[1][0], models[2][0]}
    with ExitStack() as stack:
        held = bench.hold(models[1], stack)
        os.utime(held, (0, 0))
        bench.use(models[3])
        assert bench.kept() == {models[1][0], models[3][0]}
        bench.use(models[0])
        assert bench.kept() == {models[1][0], models[0][0]}
        assert (held / "a.safetensors").exists()
    bench.use(models[2])
    assert models[2][0] in bench.kept()
    assert not list(bench.folder.glob(".trash-*"))


def test_the_disk_is_weighed_after_room_was_made(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """Unused models go where the disk is full; what does not fit then is refused before its first byte."""
    old, new = bench.model(1), bench.model(2)
    bench.use(old)
    bench.fetched.clear()
    usage = resources.shutil.disk_usage
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda path: usage(path)._replace(free=100))
    with pytest.raises(InsufficientResourcesError):
        bench.use(new)
    assert bench.fetched == []
    assert bench.kept() == {new[0]}


def test_bytes_that_are_not_what_they_are_named_are_refused(bench: Bench, store: ArtifactStore):
    """Neither a torn nor a missing blob becomes a file."""
    model = bench.model(1)
    assert store.folder is not None
    [blob] = [path for path in store.folder.rglob(model[1][0].sha256) if path.is_file()]
    blob.write_bytes(b"\1" * (SIZE - 1) + b"\2")
    with pytest.raises(BlobCorruptError):
        bench.use(model)
    store.delete(model[1][0].sha256)
    with pytest.raises(NotFoundError):
        bench.use(model)
    assert list((bench.folder / model[0]).iterdir()) == []
