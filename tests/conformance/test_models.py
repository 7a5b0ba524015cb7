"""Uploaded models in both databases: one per owner and content, counted, kept, and never taken from a job."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from store.artifacts import ArtifactStore
from store.errors import NotFoundError, QuotaExceededError, WrongStateError
from store.jobs import NewJob, model_name
from store.kept import KeptKind
from store.keys import Quotas
from store.models import ModelFile, NewUploadedModel, UploadedModel, checksums, content_sha256
from store.session import Database
from store.sweep import sweep_blobs
from tests.conformance.samples import SPEC, new_job, submit

PAST = datetime(2020, 1, 1, tzinfo=UTC)
AT_ONCE = -1.0


def new_model(owner: str = "key_a", name: str = "tiny", digit: str = "1") -> NewUploadedModel:
    """Returns a model of two files, of which the second is the same in all of them."""
    files = (
        ModelFile(name="model.safetensors", sha256=digit * 64, size_bytes=100),
        ModelFile(name="config.json", sha256="c" * 64, size_bytes=10),
    )
    return NewUploadedModel(owner_key_id=owner, name=name, model_type="llama", files=files)


def add(database: Database, owner: str = "key_a", name: str = "tiny", digit: str = "1") -> UploadedModel:
    """Stores one in a transaction of its own."""
    with database.transaction() as repository:
        return repository.add_uploaded_model(new_model(owner, name, digit))


def on(model: UploadedModel) -> dict[str, object]:
    """Returns what a job on a model has."""
    named = {"source": "upload", "id": model.id, "name": model.name, "sha256": model.sha256}
    return {"spec": {**SPEC, "model": named}, "uploaded_model_id": model.id}


def test_a_model_is_its_owners_and_named_by_its_files(database: Database):
    """The same files are the same model, under its first name; another owner has a row of its own."""
    first, again, other = add(database), add(database, name="copy"), add(database, "key_b")
    assert again == first
    assert other.id != first.id
    assert other.sha256 == first.sha256 == content_sha256(new_model().files)
    assert (first.size_bytes, first.files, first.model_type) == (110, 2, "llama")
    with database.reading() as repository:
        assert [file.name for file in repository.list_model_files(first.id)] == ["config.json", "model.safetensors"]
        assert repository.list_uploaded_models("key_a") == (first,)
        assert set(repository.list_uploaded_models()) == {first, other}
        assert repository.get_uploaded_model(first.id, "key_a") == first
        assert repository.find_uploaded_model("key_b", first.sha256) == other
        assert repository.find_uploaded_model("key_c", first.sha256) is None
        with pytest.raises(NotFoundError):
            repository.get_uploaded_model(first.id, "key_b")


def test_the_hash_is_that_of_a_list_of_checksums():
    """By name, as `sha256sum *` prints it; the order in which files came does not count."""
    files = new_model().files
    assert checksums(files) == f"{'c' * 64}  config.json\n{'1' * 64}  model.safetensors\n"
    assert content_sha256(files) == content_sha256(files[::-1])
    assert content_sha256(files) != content_sha256(files[:1])


def test_a_model_goes_only_when_no_unfinished_job_needs_it(database: Database):
    """Deleted or expired: a job that waits keeps it, one that is over forgets it; its files' rows go with it."""
    needed, used, pinned = (add(database, digit=digit) for digit in "123")
    waiting, over = submit(database, **on(needed)), submit(database, **on(used))
    assert model_name(waiting.spec) == "tiny"
    with database.transaction() as repository:
        repository.request_cancel(over.id)
        with pytest.raises(WrongStateError, match=waiting.id):
            repository.delete_uploaded_model(needed.id)
        with pytest.raises(NotFoundError):
            repository.keep_uploaded_model(pinned.id, {"pinned": True}, "key_b")
        assert repository.keep_uploaded_model(pinned.id, {"pinned": True}, "key_a").pinned
        for model in (needed, used, pinned):
            repository.keep_uploaded_model(model.id, {"expires_at": PAST})
        assert set(repository.warn_of_kept(KeptKind.UPLOADED_MODEL, 0)) == {needed.id, used.id}
        assert repository.expire_kept(KeptKind.UPLOADED_MODEL) == (used.id,)
        assert repository.list_model_files(used.id) == ()
        repository.request_cancel(waiting.id)
        repository.delete_uploaded_model(needed.id, "key_a")
        assert repository.list_uploaded_models() == (repository.get_uploaded_model(pinned.id),)


def test_a_submit_and_a_delete_at_once_leave_no_job_without_its_model(database: Database):
    """Whoever comes second sees what the first one did."""
    model = add(database)
    refused: list[str] = []

    def delete() -> None:
        try:
            with database.transaction() as repository:
                repository.delete_uploaded_model(model.id)
        except WrongStateError as error:
            refused.append(error.job_id)

    second = threading.Thread(target=delete)
    with database.transaction() as repository:
        job = repository.add_job(_new(model))[0]
        second.start()
        time.sleep(0.2)  # the delete has met the lock by now
    second.join(30)
    assert refused == [job.id]
    with database.transaction() as repository:
        repository.request_cancel(job.id)
        repository.delete_uploaded_model(model.id)
        with pytest.raises(NotFoundError):
            repository.add_job(_new(model))


def _new(model: UploadedModel) -> NewJob:
    return new_job(**on(model))


def test_the_sweep_leaves_the_files_of_models(database: Database, tmp_path: Path):
    """A file that two models share stays until the last of them goes."""
    blobs = ArtifactStore(f"file://{tmp_path}/artifacts", reserve=database.reserve_blob)
    (own, _), (shared, _) = blobs.put_bytes(b"own"), blobs.put_bytes(b"shared")
    models = [
        NewUploadedModel(
            owner_key_id=owner,
            name="m",
            model_type="llama",
            files=tuple(ModelFile(name=f"{sha256[:8]}.json", sha256=sha256, size_bytes=6) for sha256 in hashes),
        )
        for owner, hashes in (("key_a", (own, shared)), ("key_b", (shared,)))
    ]
    with database.transaction() as repository:
        first, second = (repository.add_uploaded_model(model) for model in models)
    assert sweep_blobs(database, blobs, older_than_seconds=AT_ONCE) == 0
    with database.transaction() as repository:
        repository.delete_uploaded_model(first.id)
    assert sweep_blobs(database, blobs, older_than_seconds=AT_ONCE) == 1
    assert (blobs.exists(own), blobs.exists(shared)) == (False, True)
    with database.transaction() as repository:
        repository.delete_uploaded_model(second.id)
    assert sweep_blobs(database, blobs, older_than_seconds=AT_ONCE) == 1


def test_a_keys_models_are_limited(database: Database):
    """Bytes of all files, the same model once; what is over the limit is rolled back by its transaction."""
    with database.transaction() as repository:
        key, _ = repository.add_api_key("k", {"jobs:write"}, None, Quotas(model_bytes=200))
    for _ in range(2):
        _add_within_quota(database, new_model(key.id))
    with database.reading() as repository:
        before = repository.list_uploaded_models()
    with pytest.raises(QuotaExceededError, match="model_bytes"):
        _add_within_quota(database, new_model(key.id, digit="2"))
    with database.reading() as repository:
        assert repository.list_uploaded_models() == before
        assert repository.usage(key.id).model_bytes == 110


def _add_within_quota(database: Database, new: NewUploadedModel) -> None:
    with database.transaction() as repository:
        repository.add_uploaded_model(new)
        repository.require_quota(new.owner_key_id)
