"""Batches: all jobs or none, one batch per idempotency key, and what is compared of them."""

from __future__ import annotations

import pytest

from store.errors import IdempotencyConflictError, NotFoundError
from store.jobs import BatchCell, JobFilter, JobState, NewBatch
from store.session import Database
from tests.conformance.samples import BROKEN, FILES, claim, new_job
from tests.conformance.test_reading import LINEAR


def new_batch(owner: str = "key_a", **options: object) -> NewBatch:
    cells = tuple(
        BatchCell(model_index=model, config_index=config, job=new_job(owner)) for model in (0, 1) for config in (0, 1)
    )
    return NewBatch(owner_key_id=owner, name="study", cells=cells, **options)  # type: ignore[arg-type]  # by name


def test_a_batch_holds_its_jobs_by_model_and_config(database: Database):
    """With the size and the mean loss of each; others' jobs and batches are not in it."""
    with database.transaction() as repository:
        batch, created = repository.add_batch(new_batch())
        other, _ = repository.add_batch(new_batch("key_b"))
    assert created
    assert [(member.model_index, member.config_index) for member in batch.members] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    job = claim(database)
    with database.transaction() as repository:
        repository.record_linears(job.id, job.lease_token, [LINEAR])
        repository.succeed(job.id, job.lease_token, FILES)
    with database.reading() as repository:
        read = repository.get_batch(batch.id if job.owner_key_id == "key_a" else other.id)
        assert repository.get_batch(batch.id, "key_a").id == batch.id
        with pytest.raises(NotFoundError):
            repository.get_batch(batch.id, "key_b")
    (done,) = (member for member in read.members if member.job.state is JobState.SUCCEEDED)
    assert (done.artifact_bytes, done.mean_relative_loss) == (sum(file.size_bytes for file in FILES), 0.01)
    assert {member.artifact_bytes for member in read.members if member is not done} == {None}


def test_a_repeated_batch_is_the_same_batch(database: Database):
    """The key answers with the first one and stores nothing; with another request it is refused."""
    keyed = {"idempotency_key": "k", "request_sha256": "a"}
    with database.transaction() as repository:
        first, created = repository.add_batch(new_batch(**keyed))
        again, created_again = repository.add_batch(new_batch(**keyed))
        other, _ = repository.add_batch(new_batch("key_b", **keyed))
        assert (created, created_again, again) == (True, False, first)
        assert other.id != first.id
        assert len(repository.list_jobs("key_a", JobFilter(), 100)) == 4
    with pytest.raises(IdempotencyConflictError), database.transaction() as repository:
        repository.add_batch(new_batch(idempotency_key="k", request_sha256="b"))


def test_a_deleted_job_leaves_its_batch(database: Database):
    with database.transaction() as repository:
        batch, _ = repository.add_batch(new_batch())
    job = claim(database)
    with database.transaction() as repository:
        repository.fail(job.id, job.lease_token, BROKEN)
        repository.delete_job(job.id)
        assert len(repository.get_batch(batch.id).members) == 3


def test_batches_are_listed_newest_first(database: Database):
    """Of one owner or of all, from any place on; those whose jobs are gone count none."""
    with database.transaction() as repository:
        made = [repository.add_batch(new_batch(owner))[0] for owner in ("key_a", "key_b", "key_a")]
    with database.reading() as repository:
        everybody = repository.list_batches(None, 10)
        assert [one.id for one in everybody] == [batch.id for batch in made[::-1]]
        assert [one.states for one in everybody] == [{JobState.QUEUED: 4}] * 3
        assert [one.id for one in repository.list_batches("key_a", 10)] == [made[2].id, made[0].id]
        assert [one.id for one in repository.list_batches(None, 1, made[2].id)] == [made[1].id]
        [own] = repository.list_batches("key_a", 10, job_id=made[0].members[0].job.id)
        assert own.id == made[0].id
        assert repository.list_batches("key_b", 10, job_id=made[0].members[0].job.id) == ()
        assert repository.list_batches("key_c", 10) == ()
