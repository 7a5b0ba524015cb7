"""One claim, worked to its end by the real supervisor with a real child process."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from store.jobs import JobProgress, JobState, Stage
from tests.worker.bench import OWNER, Bench, quantizing, worker_children
from worker.drain import Drain


def test_a_job_is_worked_and_published(bench: Bench):
    """A claimed job ends succeeded, with its files in the store, progress complete and nothing left on disk."""
    job_id = bench.submit().id
    assert bench.work() == job_id
    job = bench.job(job_id)
    assert job.state is JobState.SUCCEEDED
    assert (job.progress.fraction, job.progress.blocks_done, job.progress.blocks_total) == (1.0, 8, 8)
    assert job.resolved["fingerprint"] == "fake"
    assert [warning["code"] for warning in job.warnings] == ["starved"]
    with bench.services.database.reading() as repository:
        artifacts = repository.list_artifacts(job_id)
        linears = repository.list_linears(job_id)
    assert len([file for file in artifacts if file.name.endswith(".safetensors")]) == 8
    assert all(bench.services.artifacts.size(file.sha256) == file.size_bytes for file in artifacts)
    assert [(row.block, row.attempt, row.loss) for row in linears] == [(block, 1, 0.5) for block in range(8)]
    assert bench.kinds(job_id).count("block_quantized") == 8
    assert not bench.folder_left(job_id)
    assert not worker_children()


def test_a_wake_up_without_work_ends_at_once(bench: Bench):
    """A wake-up is a hint: one that finds nothing claims nothing."""
    assert bench.work() is None


def test_a_draining_worker_claims_nothing(bench: Bench):
    """After the first sign of shutdown no job is taken."""
    job_id = bench.submit().id
    bench.services.drain.request()
    assert bench.work() is None
    assert bench.job(job_id).attempt == 0


def test_progress_is_written_while_the_job_runs(bench: Bench):
    """Blocks, memory and an absolute ETA (once three blocks are timed) can be read before the end."""
    job_id = bench.submit(block_seconds=0.3).id
    thread = bench.work_behind()
    job = bench.wait(job_id, quantizing(4))
    assert job.stage is Stage.QUANTIZING
    assert 0 < job.progress.fraction < 1
    assert job.progress.eta_at is not None
    assert job.progress.rss_bytes is not None
    assert job.progress.rss_bytes > 1_000_000
    assert job.progress.last_loss == 0.5
    thread.join()
    assert bench.job(job_id).state is JobState.SUCCEEDED


def test_cancel_while_running_stops_between_batches(bench: Bench):
    """A cancel ends the child within a moment by its own stop; the job is cancelled and its folder gone."""
    job_id = bench.submit(block_seconds=120).id
    thread = bench.work_behind()
    bench.wait(job_id, lambda job: job.stage is Stage.QUANTIZING)
    child = bench.child()
    with bench.services.database.transaction() as repository:
        assert repository.request_cancel(job_id).state is JobState.CANCELLING
    thread.join(60)
    assert not thread.is_alive()
    assert bench.job(job_id).state is JobState.CANCELLED
    assert not child.is_running()
    assert not bench.folder_left(job_id)


def test_cancel_of_a_deaf_child_ends_in_kill(bench: Bench):
    """A child that hears neither the stop line nor TERM is killed when both patiences are used up."""
    job_id = bench.submit(fault="stall", block=2).id
    thread = bench.work_behind()
    bench.wait(job_id, quantizing(2))
    with bench.services.database.transaction() as repository:
        repository.request_cancel(job_id)
    thread.join(60)
    assert not thread.is_alive()
    assert bench.job(job_id).state is JobState.CANCELLED
    assert not worker_children()


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("segv", "child_crashed"),
        ("kill", "child_killed"),
        ("exit", "child_exited"),
        ("garble", "child_protocol"),
        ("memory", "out_of_memory"),
        ("bug", "internal_error"),
    ],
)
def test_a_lost_child_is_classified_and_the_job_resumes(bench: Bench, fault: str, code: str):
    """Every way to die has its code and place on the attempt; the next one starts behind the last finished block."""
    job_id = bench.submit(fault=fault, block=3).id
    bench.work()
    job = bench.job(job_id)
    assert (job.state, job.failures) == (JobState.QUEUED, 1)
    bench.work()
    with bench.services.database.reading() as repository:
        first, second = repository.list_attempts(job_id)
        events = repository.list_events(job_id)
    assert first.error is not None
    assert (first.error.code, first.error.stage, first.error.block) == (code, "quantizing", 3)
    assert second.outcome == "succeeded"
    started = [event.payload["blocks_resumed"] for event in events if event.kind == "run_started"]
    assert started == [0, 3]
    assert [warning["code"] for warning in bench.job(job_id).warnings] == ["starved"]


def test_the_last_words_of_a_child_reach_the_user(bench: Bench):
    """What a dying child wrote on standard error is in the error's hint."""
    job_id = bench.submit(fault="exit", block=0).id
    bench.work()
    with bench.services.database.reading() as repository:
        error = repository.list_attempts(job_id)[0].error
    assert error is not None
    assert "something went wrong in a library" in error.hint


@pytest.mark.parametrize("fault", ["freeze", "stall"])
def test_a_hanging_child_is_ended(bench: Bench, fault: str):
    """A child without ticks, and one that ticks but does no work, are both killed and classified."""
    settings = bench.services.settings.model_copy(update={"silence_limit_seconds": 5.0, "stall_limit_seconds": 5.0})
    job_id = bench.submit(fault=fault, block=2).id
    Bench(replace(bench.services, settings=settings), bench.tiny_model).work()
    with bench.services.database.reading() as repository:
        error = repository.list_attempts(job_id)[0].error
    assert error is not None
    assert (error.code, error.block) == ("child_hung", 2)
    assert not worker_children()


def test_a_job_lost_twice_at_one_block_fails_as_poison(bench: Bench):
    """Two crashes in a row at the same block end the job, though attempts are left, and the queue moves on."""
    job_id = bench.submit(fault="segv", block=3, times=9, max_attempts=5).id
    bench.work()
    bench.work()
    job = bench.job(job_id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert (job.error.code, job.error.block, job.error.retryable) == ("poison_job", 3, False)
    assert bench.work() is None
    assert not bench.folder_left(job_id)


@pytest.mark.parametrize(("fault", "code"), [("numerical", "numerical_error"), ("refused", "non_finite_weights")])
def test_what_the_input_decides_is_not_tried_again(bench: Bench, fault: str, code: str):
    """A refusal by the engine fails the job at the first attempt, with its code and remedy."""
    job_id = bench.submit(fault=fault, block=1).id
    bench.work()
    job = bench.job(job_id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == code
    assert job.error.hint
    assert not job.error.retryable


def test_memory_is_tried_again_once(bench: Bench):
    """The second out of memory is final, whatever attempts are left."""
    job_id = bench.submit(fault="memory", block=1, times=9, max_attempts=5).id
    bench.work()
    bench.work()
    job = bench.job(job_id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == "out_of_memory"


def test_a_users_retry_starts_with_a_clean_record(bench: Bench):
    """After a retry by hand, the crashes before it count neither for poison nor for the budget."""
    job_id = bench.submit(fault="segv", block=3, times=3).id
    bench.work()
    bench.work()
    assert bench.job(job_id).state is JobState.FAILED
    with bench.services.database.transaction() as repository:
        repository.retry(job_id, OWNER)
    bench.work()
    assert bench.job(job_id).state is JobState.QUEUED
    bench.work()
    assert bench.job(job_id).state is JobState.SUCCEEDED


def test_drain_finishes_the_block_and_counts_nothing(bench: Bench):
    """A drain lets the block under way finish, then gives the job back; the next worker goes on behind it."""
    job_id = bench.submit(block_seconds=0.6).id
    thread = bench.work_behind()
    bench.wait(job_id, quantizing(1))
    bench.services.drain.request()
    thread.join()
    job = bench.job(job_id)
    assert (job.state, job.failures, job.attempt) == (JobState.QUEUED, 0, 1)
    Bench(replace(bench.services, drain=Drain()), bench.tiny_model).work()
    job = bench.job(job_id)
    assert (job.state, job.attempt, job.failures) == (JobState.SUCCEEDED, 2, 0)
    with bench.services.database.reading() as repository:
        events = repository.list_events(job_id)
    blocks = [event.payload["block"] for event in events if event.kind == "block_quantized"]
    assert blocks == list(range(8))


def test_a_cold_drain_does_not_wait_for_the_block(bench: Bench):
    """The second request to end stops the child at once; the attempt still does not count."""
    job_id = bench.submit(block_seconds=120).id
    thread = bench.work_behind()
    bench.wait(job_id, lambda job: job.stage is Stage.QUANTIZING)
    bench.services.drain.request()
    bench.services.drain.request()
    thread.join(60)
    assert not thread.is_alive()
    job = bench.job(job_id)
    assert (job.state, job.failures) == (JobState.QUEUED, 0)


def test_a_lost_lease_kills_the_child_and_writes_nothing(bench: Bench):
    """When another claim holds the job, the old supervisor ends its child and leaves the row alone."""
    job_id = bench.submit(block_seconds=2).id
    thread = bench.work_behind()
    bench.wait(job_id, lambda job: job.stage is Stage.QUANTIZING)
    child = bench.child()
    _steal(bench, job_id)
    thread.join(60)
    assert not thread.is_alive()
    assert not child.is_running()
    job = bench.job(job_id)
    assert (job.state, job.attempt, job.worker_id) == (JobState.RUNNING, 2, "thief")
    assert "failed" not in bench.kinds(job_id)


def test_a_supervisor_without_its_database_fences_itself(bench: Bench):
    """Without a renewal for fence_seconds, before the lease can end, the child is killed and nothing is written."""
    settings = bench.services.settings.model_copy(update={"fence_seconds": 4, "lease_seconds": 20})
    bench = Bench(replace(bench.services, settings=settings), bench.tiny_model)
    job_id = bench.submit(block_seconds=60).id
    thread = bench.work_behind()
    bench.wait(job_id, lambda job: job.stage is Stage.QUANTIZING)
    child = bench.child()
    with bench.locked_database():
        started = time.monotonic()
        child.wait(60)
        assert time.monotonic() - started < settings.lease_seconds
        thread.join(60)
    assert not thread.is_alive()
    assert bench.job(job_id).state is JobState.RUNNING


def test_a_short_database_outage_costs_nothing(bench: Bench):
    """A database that is away for less than the fence neither ends the job nor loses its history."""
    job_id = bench.submit(block_seconds=0.3).id
    thread = bench.work_behind()
    bench.wait(job_id, quantizing(1))
    with bench.locked_database():
        time.sleep(1.5)
    thread.join()
    assert bench.job(job_id).state is JobState.SUCCEEDED
    assert bench.kinds(job_id).count("block_quantized") == 8


def test_a_job_that_takes_two_workers_down_at_one_block_is_not_given_to_a_third(bench: Bench):
    """Two leases lost at the same block are poison as well; the third claim ends the job without starting it."""
    job_id = bench.submit(max_attempts=5).id
    for _ in range(2):
        _lose(bench, blocks_done=3)
    bench.work()
    job = bench.job(job_id)
    assert job.error is not None
    assert (job.state, job.error.code, job.error.block) == (JobState.FAILED, "poison_job", 3)
    assert "run_started" not in bench.kinds(job_id)


def test_workers_lost_at_two_blocks_do_not_poison_a_job(bench: Bench):
    """A job that got further with each worker goes on."""
    job_id = bench.submit(max_attempts=5).id
    for block in (2, 3):
        _lose(bench, blocks_done=block)
    bench.work()
    assert bench.job(job_id).state is JobState.SUCCEEDED


def test_another_profile_starts_from_block_0_and_says_so(bench: Bench):
    """Blocks that another machine's numerics made are thrown away, with a warning on the job."""
    job_id = bench.submit(fault="resume", place="resume", block=0).id
    bench.work()
    job = bench.job(job_id)
    assert job.state is JobState.SUCCEEDED
    assert "restarted" in [warning["code"] for warning in job.warnings]


def test_an_unreadable_request_fails_the_job(bench: Bench):
    """A row that cannot be understood ends as failed and does not stop the queue."""
    job_id = bench.add({"source": "path", "path": "tiny"}).id
    bench.work()
    job = bench.job(job_id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == "spec_invalid"


def test_a_model_outside_the_roots_is_refused(bench: Bench):
    """A stored path that leads out of the roots by now is refused by the worker too."""
    bench.model()
    job_id = bench.add({"source": "path", "root": "models", "path": "../cache"}).id
    bench.work()
    job = bench.job(job_id)
    assert job.error is not None
    assert (job.state, job.error.code) == (JobState.FAILED, "model_not_found")


def test_the_child_holds_no_secret(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """The child's environment carries nothing of the service's addresses and keys."""
    for name in ("BITMILL_DATABASE_URL", "BITMILL_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, "secret")
    job_id = bench.submit(block_seconds=0.5).id
    thread = bench.work_behind()
    bench.wait(job_id, lambda job: job.stage is Stage.QUANTIZING)
    environment = bench.child().environ()
    assert "secret" not in environment.values()
    assert not [name for name in environment if name.startswith(("BITMILL", "AWS", "HF_TOKEN"))]
    assert environment["HF_HUB_OFFLINE"] == "1"
    thread.join()


def test_a_finished_artifact_is_not_built_twice(bench: Bench):
    """An attempt that was lost after packing hands its artifact to the next one, which only checks and uploads it."""
    job_id = bench.submit().id
    in_the_way = bench.services.settings.data_dir / "artifacts" / "blobs"
    in_the_way.write_text("a file where the store needs a folder")
    bench.work()
    assert bench.job(job_id).state is JobState.QUEUED
    with bench.services.database.reading() as repository:
        error = repository.list_attempts(job_id)[0].error
    assert error is not None
    assert (error.code, error.stage) == ("storage_unavailable", "uploading")
    in_the_way.unlink()
    bench.work()
    assert bench.job(job_id).state is JobState.SUCCEEDED
    assert bench.kinds(job_id).count("run_started") == 1


def _steal(bench: Bench, job_id: str) -> None:
    """Does what the sweeper and another worker do once a lease has run out."""
    with bench.services.database.transaction() as repository:
        job = repository.get_job(job_id)
        repository.release(job_id, job.lease_token)
        assert repository.claim("thief", "default") is not None


def _lose(bench: Bench, blocks_done: int) -> None:
    """A worker claims the next job, gets so far and is never heard of again."""
    with bench.services.database.transaction() as repository:
        job = repository.claim("lost", "default")
        assert job is not None
        progress = JobProgress(blocks_done=blocks_done, blocks_total=8)
        repository.heartbeat(job.id, job.lease_token, stage=Stage.QUANTIZING, progress=progress, lease_seconds=-1)
    with bench.services.database.transaction() as repository:
        assert repository.rescue_expired() == (job.id,)
