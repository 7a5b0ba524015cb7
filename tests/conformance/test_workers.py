"""Workers that register, drain and fall silent, and jobs that go only where they fit, on both databases alike."""

from __future__ import annotations

import pytest

from store.errors import NotFoundError
from store.session import Database
from store.workers import Capability, Needs, ObstacleCode
from tests.conformance.samples import claim, submit, worker_facts

SMALL = Capability(device="cpu", memory_bytes=1_000)
LARGE = Capability(device="cuda", memory_bytes=1_000_000)


def test_a_worker_registers_once_and_lives_by_its_heartbeat(database: Database) -> None:
    """Registering again is a sign of life; who ends in an orderly way is forgotten at once, who falls silent later."""
    with database.transaction() as repository:
        assert repository.register_worker(worker_facts()) is False
        first = repository.get_worker("wrk_test")
    with database.transaction() as repository:
        repository.register_worker(worker_facts())
        again = repository.get_worker("wrk_test")
        assert (again.facts, again.live, again.busy) == (worker_facts(), True, 0)
        assert again.registered_at == first.registered_at
        assert again.heartbeat_at >= first.heartbeat_at
        assert repository.forget_workers(60) == 0
        assert repository.forget_workers(-60) == 1
        repository.register_worker(worker_facts())
        repository.remove_worker("wrk_test")
        repository.remove_worker("wrk_test")
        assert repository.list_workers() == ()


def test_a_drain_is_told_with_the_heartbeat_and_taken_back(database: Database) -> None:
    """The first request's time stays; a worker that is not there cannot be drained."""
    with database.transaction() as repository:
        repository.register_worker(worker_facts())
        asked = repository.drain_worker("wrk_test", drain=True)
        assert repository.drain_worker("wrk_test", drain=True) == asked
        assert not asked.takes_jobs
        assert repository.register_worker(worker_facts()) is True
        assert repository.drain_worker("wrk_test", drain=False).takes_jobs
        assert repository.register_worker(worker_facts()) is False
    with pytest.raises(NotFoundError), database.transaction() as repository:
        repository.drain_worker("wrk_none", drain=True)


def test_held_jobs_are_counted_for_all_and_named_for_their_owner(database: Database) -> None:
    job = submit(database, "key_a")
    claim(database)
    with database.transaction() as repository:
        repository.register_worker(worker_facts())
        for owner, named in ((None, (job.id,)), ("key_a", (job.id,)), ("key_b", ())):
            worker = repository.get_worker("wrk_test", owner)
            assert (worker.busy, worker.jobs) == (1, named)


def test_a_worker_claims_only_what_it_can_run(database: Database) -> None:
    """A job that needs more than a worker has is neither counted for it nor given to it; the next one that fits is."""
    heavy = submit(database, needs=Needs(memory_bytes=5_000))
    on_cuda = submit(database, needs=Needs(device="cuda"))
    light = submit(database, needs=Needs(device="cpu", memory_bytes=1_000))
    anything = submit(database)
    with database.transaction() as repository:
        assert repository.queued_counts(SMALL) == {"default": 2}
        assert repository.queued_counts(LARGE) == {"default": 3}
        assert repository.queued_counts() == {"default": 4}
        taken = [repository.claim("small", "default", capability=SMALL) for _ in range(3)]
        assert [job and job.id for job in taken] == [light.id, anything.id, None]
        taken = [repository.claim("large", "default", capability=LARGE) for _ in range(3)]
        assert [job and job.id for job in taken] == [heavy.id, on_cuda.id, None]


def test_a_job_that_nobody_can_take_is_told_why(database: Database) -> None:
    """The reasons come in the order in which an operator would mend them; none is left once a worker fits."""
    job = submit(database, needs=Needs(device="cuda", memory_bytes=1_000_000))

    def reason() -> ObstacleCode | None:
        with database.reading() as repository:
            place = repository.queue_position(job.id)
        assert (place.position, place.waiting) == (1, 1)
        assert (place.obstacle is None) == (place.workers > 0)
        return None if place.obstacle is None else place.obstacle.code

    assert reason() is ObstacleCode.NO_WORKER
    steps = [
        (worker_facts("a", queue_classes=("other",)), ObstacleCode.NO_WORKER),
        (worker_facts("b", capability=SMALL), ObstacleCode.DEVICE_MISSING),
        (worker_facts("c", capability=Capability(device="cuda", memory_bytes=10)), ObstacleCode.MEMORY_TOO_SMALL),
        (worker_facts("d", capability=LARGE), None),
    ]
    for facts, expected in steps:
        with database.transaction() as repository:
            repository.register_worker(facts)
        assert reason() is expected
    with database.reading() as repository:
        assert repository.queue_position(job.id).free_slots == 2
    with database.transaction() as repository:
        for name in "bcd":
            repository.drain_worker(name, drain=True)
    assert reason() is ObstacleCode.WORKERS_DRAINING
