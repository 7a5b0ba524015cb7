"""What lists and look-ups return, and to whom, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from store.errors import IdempotencyConflictError, NotFoundError
from store.jobs import Cursor, Job, JobFilter, JobState, LinearRow, NewCalibrationSet
from store.session import Database
from tests.conformance.samples import FILES, SPEC, claim, new_job, submit, submit_and_claim

LINEAR = LinearRow(
    block=0,
    linear="self_attn.q_proj",
    bits=4,
    group_size=64,
    loss=1.5,
    relative_loss=0.01,
    tokens=16384,
    damp_percent=0.05,
    seconds=0.25,
    warnings=("damped",),
)
TEXT = NewCalibrationSet(
    owner_key_id="key_a", name="notes", format="text", sha256="d" * 64, size_bytes=100, documents=3
)


def _pages(database: Database, owner: str | None, job_filter: JobFilter, page_size: int) -> list[Job]:
    listed: list[Job] = []
    after = None
    while True:
        with database.reading() as repository:
            page = repository.list_jobs(owner, job_filter, page_size, after)
        if not page:
            return listed
        listed += page
        after = Cursor(created_at=page[-1].created_at, id=page[-1].id)


def test_submitted_job_reads_back(database: Database) -> None:
    """What add_job returns is what get_job reads, and holds what was submitted."""
    new = new_job(labels={"team": "x"}, priority=3, max_attempts=5, queue_class="gpu", deadline_seconds=60)
    with database.transaction() as repository:
        job, created = repository.add_job(new)
    with database.reading() as repository:
        assert repository.get_job(job.id) == job
    assert created
    assert (job.state, job.attempt, job.failures, job.version) == (JobState.QUEUED, 0, 0, 1)
    assert (job.spec, job.labels, job.priority, job.max_attempts, job.queue_class) == (SPEC, {"team": "x"}, 3, 5, "gpu")
    assert job.deadline_seconds == 60
    assert job.created_at.tzinfo is UTC
    assert abs(datetime.now(UTC) - job.created_at) < timedelta(seconds=30)


def test_pages_hold_each_job_once_newest_first(database: Database) -> None:
    """Walking the pages gives every job once, newest first, whatever the page size; later submits do not disturb it."""
    submitted = [submit(database) for _ in range(7)]
    with database.reading() as repository:
        first = repository.list_jobs("key_a", JobFilter(), 3)
    submit(database)
    after = Cursor(created_at=first[-1].created_at, id=first[-1].id)
    with database.reading() as repository:
        rest = repository.list_jobs("key_a", JobFilter(), 100, after)
    expected = sorted(submitted, key=lambda job: (job.created_at, job.id), reverse=True)
    assert [*first, *rest] == expected
    assert len(_pages(database, "key_a", JobFilter(), 2)) == 8


def test_filters_narrow_the_list(database: Database) -> None:
    """Each filter alone and all of them together leave exactly the jobs that match."""
    other_model = {**SPEC, "model": {"source": "hub", "repo": "org/name", "revision": "main"}}
    other_method = {**SPEC, "quantization": {"method": "rtn"}}
    plain = submit(database)
    hub = submit(database, spec=other_model, labels={"team": "x", "run": "1"})
    rtn = submit(database, spec=other_method, labels={"team": "y"})
    running = claim(database)
    assert running.id == plain.id
    for job_filter, expected in (
        (JobFilter(states=(JobState.RUNNING,)), {plain.id}),
        (JobFilter(method="rtn"), {rtn.id}),
        (JobFilter(model="org/name"), {hub.id}),
        (JobFilter(labels=(("team", "x"),)), {hub.id}),
        (JobFilter(labels=(("team", "z"),)), set()),
        (JobFilter(states=(JobState.QUEUED,), method="gptq", model="org/name", labels=(("run", "1"),)), {hub.id}),
        (JobFilter(states=(JobState.QUEUED, JobState.RUNNING), method="gptq"), {plain.id, hub.id}),
        (JobFilter(labels=(("team", "x"), ("run", "1"))), {hub.id}),
        (JobFilter(labels=(("team", "x"), ("run", "2"))), set()),
        (JobFilter(created_after=plain.created_at), {hub.id, rtn.id}),
        (JobFilter(created_before=rtn.created_at, created_after=plain.created_at), {hub.id}),
        (JobFilter(), {plain.id, hub.id, rtn.id}),
    ):
        assert {job.id for job in _pages(database, "key_a", job_filter, 2)} == expected, job_filter


def test_the_queue_position_is_the_order_of_claims(database: Database) -> None:
    """Claiming one job after another takes each when its position is 1; held jobs of an owner put its others back."""
    submit(database, "key_a")
    busy = claim(database)
    jobs = [
        submit(database, owner, priority=priority) for owner, priority in zip("abcab", (0, 5, 0, 5, 0), strict=True)
    ]
    mine = submit(database, "key_a", priority=5)
    with database.reading() as repository:
        assert repository.queue_position(busy.id).position is None
        positions = {job.id: repository.queue_position(job.id) for job in (*jobs, mine)}
        with pytest.raises(NotFoundError):
            repository.queue_position(mine.id, "key_b")
    assert sorted(place.position or 0 for place in positions.values()) == [1, 2, 3, 4, 5, 6]
    assert {place.waiting for place in positions.values()} == {6}
    assert positions[mine.id].position == 3
    for left in range(6, 0, -1):
        with database.reading() as repository:
            places = {job.id: repository.queue_position(job.id) for job in (*jobs, mine)}
        (first,) = (job_id for job_id, place in places.items() if place.position == 1)
        assert places[first].waiting == left
        assert claim(database).id == first


def test_a_job_that_waits_for_its_retry_is_not_counted(database: Database) -> None:
    """It stands behind those that can be claimed before it, and they do not wait for it."""
    delayed = submit_and_claim(database)
    with database.transaction() as repository:
        repository.release(delayed.id, delayed.lease_token, delay_seconds=60)
    other = submit(database)
    with database.reading() as repository:
        assert (repository.queue_position(other.id).position, repository.queue_position(other.id).waiting) == (1, 1)
        assert repository.queue_position(delayed.id).position == 1


def test_owners_do_not_see_each_other(database: Database) -> None:
    """Another owner's job cannot be read, listed, cancelled or retried, nor its parts; None sees all."""
    job = submit_and_claim(database, "key_a")
    submit(database, "key_b")
    with database.transaction() as repository:
        repository.succeed(job.id, job.lease_token, FILES)
    with database.reading() as repository:
        artifact = repository.list_artifacts(job.id)[0]
        for question in (
            lambda: repository.get_job(job.id, "key_b"),
            lambda: repository.list_events(job.id, owner="key_b"),
            lambda: repository.list_attempts(job.id, owner="key_b"),
            lambda: repository.list_linears(job.id, owner="key_b"),
            lambda: repository.list_artifacts(job.id, owner="key_b"),
            lambda: repository.get_artifact(job.id, artifact.id, owner="key_b"),
            lambda: repository.get_artifact(job.id, "art_none", owner="key_a"),
        ):
            with pytest.raises(NotFoundError):
                question()
        assert job.id not in {listed.id for listed in repository.list_jobs("key_b", JobFilter(), 10)}
        assert len(repository.list_jobs(None, JobFilter(), 10)) == 2
        assert repository.get_artifact(job.id, artifact.id, owner="key_a") == artifact
    for change in ("request_cancel", "retry"):
        with pytest.raises(NotFoundError), database.transaction() as repository:
            getattr(repository, change)(job.id, "key_b")


def test_idempotency_key_returns_the_first_job(database: Database) -> None:
    """The same key and request give the same job; another owner's equal key is another key."""
    new = new_job(idempotency_key="once", request_sha256="1" * 64)
    with database.transaction() as repository:
        first, created = repository.add_job(new)
    with database.transaction() as repository:
        second, created_again = repository.add_job(new)
        _, created_for_other = repository.add_job(replace(new, owner_key_id="key_b"))
    assert (created, created_again, created_for_other) == (True, False, True)
    assert second == first


def test_idempotency_key_with_another_request_is_refused(database: Database) -> None:
    """A key that comes with a changed request is an error, not a silent answer with the old job."""
    new = new_job(idempotency_key="once", request_sha256="1" * 64)
    with database.transaction() as repository:
        repository.add_job(new)
    with pytest.raises(IdempotencyConflictError), database.transaction() as repository:
        repository.add_job(replace(new, request_sha256="2" * 64))


def test_concurrent_submits_with_one_key_make_one_job(database: Database) -> None:
    """However many copies of a submit arrive at once, one job is stored and every caller gets it."""
    new = new_job(idempotency_key="once", request_sha256="1" * 64)
    start = threading.Barrier(6)

    def run() -> tuple[Job, bool]:
        start.wait()
        with database.transaction() as repository:
            return repository.add_job(new)

    with ThreadPoolExecutor(6) as pool:
        answers = [future.result() for future in [pool.submit(run) for _ in range(6)]]
    assert sum(created for _, created in answers) == 1
    assert len({job.id for job, _ in answers}) == 1


def test_counts(database: Database) -> None:
    """Queued jobs are counted by class, and all jobs by state."""
    submit(database, queue_class="gpu")
    submit_and_claim(database)
    submit(database)
    with database.reading() as repository:
        assert repository.queued_counts() == {"default": 1, "gpu": 1}
        assert repository.state_counts() == {**dict.fromkeys(JobState, 0), JobState.QUEUED: 2, JobState.RUNNING: 1}


def test_linears_are_listed_by_block_and_replaced_by_a_later_solve(database: Database) -> None:
    """Rows come back in order and in pages; a linear that was solved again carries the later attempt's values."""
    job = submit_and_claim(database)
    rows = [replace(LINEAR, block=block, linear=name) for block in (1, 0) for name in ("b", "a")]
    with database.transaction() as repository:
        repository.record_linears(job.id, job.lease_token, rows)
        repository.release(job.id, job.lease_token)
    again = claim(database)
    without_hessian = replace(LINEAR, block=1, linear="a", loss=None, relative_loss=None, damp_percent=None)
    with database.transaction() as repository:
        repository.record_linears(again.id, again.lease_token, [without_hessian])
    with database.reading() as repository:
        listed = repository.list_linears(job.id)
        assert repository.list_linears(job.id, after=(0, "b"), limit=1) == listed[2:3]
    assert [(row.block, row.linear, row.attempt) for row in listed] == [
        (0, "a", 1),
        (0, "b", 1),
        (1, "a", 2),
        (1, "b", 1),
    ]
    assert listed[2] == replace(without_hessian, attempt=2)
    assert listed[0] == replace(LINEAR, linear="a", attempt=1)


def test_events_page_by_sequence(database: Database) -> None:
    """Events come oldest first and resume behind a sequence number."""
    job = submit_and_claim(database)
    with database.transaction() as repository:
        for number in range(4):
            repository.add_event(job.id, job.lease_token, "step", {"number": number})
    with database.reading() as repository:
        assert [event.seq for event in repository.list_events(job.id, 2, 3)] == [3, 4, 5]
        assert [event.seq for event in repository.list_events(job.id, 5)] == [6]


def test_concurrent_events_leave_no_gap(database: Database) -> None:
    """Writers at the same time still number a job's events 1, 2, 3 and so on."""
    job = submit_and_claim(database)
    start = threading.Barrier(4)

    def run(writer: int) -> None:
        start.wait()
        for number in range(5):
            with database.transaction() as repository:
                repository.add_event(job.id, job.lease_token, "step", {"writer": writer, "number": number})

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(run, writer) for writer in range(4)]:
            future.result()
    with database.reading() as repository:
        assert [event.seq for event in repository.list_events(job.id)] == list(range(1, 23))


def test_calibration_sets_are_stored_once_per_owner(database: Database) -> None:
    """The same bytes give the owner's first set again; another owner gets a set of their own."""
    with database.transaction() as repository:
        first = repository.add_calibration_set(TEXT)
        again = repository.add_calibration_set(replace(TEXT, name="renamed"))
        other = repository.add_calibration_set(replace(TEXT, owner_key_id="key_b"))
    assert again == first
    assert other.id != first.id
    with database.reading() as repository:
        assert repository.get_calibration_set(first.id, "key_a") == first
        assert repository.list_calibration_sets("key_a") == (first,)
        with pytest.raises(NotFoundError):
            repository.get_calibration_set(first.id, "key_b")


def test_job_refers_to_its_calibration_set(database: Database) -> None:
    """The set's id is on the job."""
    with database.transaction() as repository:
        stored = repository.add_calibration_set(TEXT)
        job, _ = repository.add_job(new_job(calibration_set_id=stored.id))
    assert job.calibration_set_id == stored.id


def test_pages_under_concurrent_submits_neither_repeat_nor_skip(database: Database) -> None:
    """While others submit without a pause, every job that was there at the start is seen exactly once."""
    there = [submit(database).id for _ in range(30)]
    stop = threading.Event()

    def keep_submitting() -> None:
        while not stop.is_set():
            submit(database)

    with ThreadPoolExecutor(3) as pool:
        submitters = [pool.submit(keep_submitting) for _ in range(3)]
        seen: list[str] = []
        after = None
        try:
            while True:
                with database.reading() as repository:
                    page = repository.list_jobs(None, JobFilter(), 4, after)
                seen += [job.id for job in page]
                if not page:
                    break
                after = Cursor(created_at=page[-1].created_at, id=page[-1].id)
        finally:
            stop.set()
        for submitter in submitters:
            submitter.result()
    assert len(seen) == len(set(seen))
    assert [job_id for job_id in seen if job_id in there] == there[::-1]


def test_a_version_alone_is_what_the_whole_row_says(database: Database) -> None:
    """Version and state follow the job, and are no more anybody else's than the job is."""
    job = submit(database)
    for expected in (JobState.QUEUED, JobState.RUNNING):
        with database.reading() as repository:
            whole = repository.get_job(job.id)
            assert repository.job_version(job.id, job.owner_key_id) == (whole.version, whole.state)
            assert whole.state is expected
            with pytest.raises(NotFoundError):
                repository.job_version(job.id, "key_stranger")
        if expected is JobState.QUEUED:
            claim(database)
