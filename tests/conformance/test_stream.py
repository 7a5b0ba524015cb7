"""The one order of all jobs' events: complete, in each job's own order, and never past an open transaction."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from store.jobs import JobEvent, StreamPlace
from store.session import Database
from tests.conformance.samples import BROKEN, claim, submit, submit_and_claim

START = StreamPlace(position=0, job_id="", seq=0)


def read_all(database: Database, after: StreamPlace = START, page: int = 3) -> tuple[list[JobEvent], StreamPlace]:
    """Returns every final event behind a place, read in small pages."""
    read: list[JobEvent] = []
    while True:
        with database.reading() as repository:
            answer = repository.read_stream(after, page)
        read += [streamed.event for streamed in answer.events]
        after = answer.place
        if len(answer.events) < page:
            return read, after


def test_every_event_comes_once_in_its_jobs_order(database: Database):
    """Whatever the size of the pages; reading on from the end gives what was written since."""
    jobs = [submit(database) for _ in range(3)]
    for _ in jobs:
        job = claim(database)
        with database.transaction() as repository:
            repository.fail(job.id, job.lease_token, BROKEN)
    read, end = read_all(database)
    for job in jobs:
        assert [event.seq for event in read if event.job_id == job.id] == [1, 2, 3]
    assert len(read) == 9
    assert read_all(database, end) == ([], end)
    late = submit(database)
    assert [event.job_id for event in read_all(database, end)[0]] == [late.id]


def test_a_reader_sees_its_owners_jobs_and_those_it_names(database: Database):
    mine, other, theirs = submit(database, "key_a"), submit(database, "key_a"), submit(database, "key_b")
    with database.reading() as repository:
        own = repository.read_stream(START, 10, owner="key_a")
        named = repository.read_stream(START, 10, owner="key_a", job_ids=[mine.id, theirs.id])
        assert {streamed.event.job_id for streamed in own.events} == {mine.id, other.id}
        assert {streamed.owner_key_id for streamed in own.events} == {"key_a"}
        assert [streamed.event.job_id for streamed in named.events] == [mine.id]
        assert own.place == named.place == repository.stream_end()


def test_positions_of_deleted_jobs_do_not_come_back(database: Database):
    """A reader at the end still hears of what is written after the newest job was deleted."""
    job = submit_and_claim(database)
    with database.transaction() as repository:
        repository.fail(job.id, job.lease_token, BROKEN)
    _, end = read_all(database)
    with database.transaction() as repository:
        repository.delete_job(job.id)
    after = submit(database)
    assert [event.job_id for event in read_all(database, end)[0]] == [after.id]


def test_no_place_passes_an_open_transaction(database: Database):
    """What one transaction commits late is not skipped because others, begun after it, committed first."""
    opened, finish = threading.Event(), threading.Event()
    held, free = submit(database), submit(database)
    _, end = read_all(database)

    def cancel_slowly() -> None:
        with database.transaction() as repository:
            repository.request_cancel(held.id)
            opened.set()
            finish.wait(10)

    def cancel_quickly() -> None:
        with database.transaction() as repository:
            repository.request_cancel(free.id)

    with ThreadPoolExecutor() as pool:
        slow = pool.submit(cancel_slowly)
        opened.wait(10)
        quick = pool.submit(cancel_quickly)  # on SQLite it waits for the slow one
        seen, place = [], end
        for step in range(20):
            if step == 10:
                finish.set()
                slow.result()
                quick.result()
            more, place = read_all(database, place)
            seen += more
    assert sorted(event.job_id for event in seen) == sorted([held.id, free.id])


def test_a_follower_beside_many_writers_misses_nothing(database: Database):
    """Each event once, and each job's in the order of seq, while writers commit in any order."""
    jobs = [submit(database, max_attempts=100) for _ in range(6)]
    _, place = read_all(database)
    done = threading.Event()
    seen: list[JobEvent] = []

    def follow() -> None:
        nonlocal place
        while True:
            last = done.is_set()
            more, place = read_all(database, place, page=7)
            seen.extend(more)
            if last:
                return

    def write(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(8):
            with database.transaction() as repository:
                # Several rows in one transaction, always in one order, so that none waits for another in a circle.
                for job in sorted(chance.sample(jobs, 2), key=lambda job: job.id):
                    repository.request_cancel(job.id)
                    repository.retry(job.id)

    with ThreadPoolExecutor() as pool:
        follower = pool.submit(follow)
        for writer in [pool.submit(write, seed) for seed in range(4)]:
            writer.result()
        done.set()
        follower.result()
    for job in jobs:
        with database.reading() as repository:
            assert [event.seq for event in seen if event.job_id == job.id] == [
                event.seq for event in repository.list_events(job.id, 1)
            ]


def test_held_jobs_are_those_with_a_worker(database: Database):
    running = submit_and_claim(database)
    submit(database)
    with database.reading() as repository:
        assert [job.id for job in repository.list_held_jobs()] == [running.id]


def test_rows_of_older_code_have_a_position_too(database: Database):
    """An INSERT that does not name the column is followed like any other."""
    job = submit(database)
    _, end = read_all(database)
    with database.transaction() as repository:
        repository._connection.exec_driver_sql(
            f"INSERT INTO events (job_id, seq, kind, at, attempt, payload) "  # noqa: S608 - our own id
            f"SELECT job_id, 2, 'note', at, 0, '{{}}' FROM events WHERE job_id = '{job.id}'"
        )
    assert [(event.seq, event.kind) for event in read_all(database, end)[0]] == [(2, "note")]


@pytest.mark.parametrize("count", [1, 2])
def test_a_page_that_is_exactly_full_reads_on_from_its_last_event(database: Database, count: int):
    for _ in range(count):
        submit(database)
    with database.reading() as repository:
        page = repository.read_stream(START, count)
    assert page.place == page.events[-1].place
    assert read_all(database, page.place)[0] == []
