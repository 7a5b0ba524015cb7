"""Models of the hub, fetched from a hub on this machine by the real client in the real downloader process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from store.jobs import JobEvent, JobState, Stage
from store.vault import Vault
from tests.worker.bench import OWNER, Bench, fetch_was_shown, watched_progress
from tests.worker.fake_hub import BRANCH, BROKEN_REPO, COMMIT, GATED_REPO, REPO, FakeHub, fake_hub


@pytest.fixture
def hub(tmp_path: Path, tiny_model: Path) -> Iterator[FakeHub]:
    """A hub with the tiny model, which also carries what must not be fetched."""
    folder = shutil.copytree(tiny_model, tmp_path / "hub")
    for name in ("modeling_evil.py", "pytorch_model.bin", "README.md", "flax_model.msgpack"):
        (folder / name).write_text("not wanted")
    with fake_hub(folder) as served:
        yield served


@pytest.fixture
def online(bench: Bench, hub: FakeHub) -> Bench:
    """A bench whose worker uses that hub."""
    update = {"hub_endpoint": hub.endpoint, "hub_token": SecretStr("hf_hidden")}
    return Bench(replace(bench.services, settings=bench.services.settings.model_copy(update=update)), bench.tiny_model)


def test_a_hub_model_is_fetched_and_quantized(online: Bench, hub: FakeHub):
    """Only wanted files come over; the commit is on the job and in the artifact's provenance."""
    job_id = online.add({"source": "hub", "repo": REPO, "revision": BRANCH}).id
    with watched_progress() as shown:
        online.work()
    job = online.job(job_id)
    assert job.state is JobState.SUCCEEDED, job.error
    assert fetch_was_shown(shown)
    assert job.resolved["model_commit"] == COMMIT
    assert hub.downloaded == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert hub.tokens == {"Bearer hf_hidden"}
    with online.services.database.reading() as repository:
        [config] = [file for file in repository.list_artifacts(job_id) if file.name == "config.json"]
    assert COMMIT in b"".join(online.services.artifacts.open(config.sha256)).decode()
    assert "downloading" in [
        event.payload.get("stage") for event in _events(online, job_id) if event.kind == "stage_started"
    ]


def test_a_second_job_uses_the_cache(online: Bench, hub: FakeHub):
    """What was fetched once is not fetched again."""
    for _ in range(2):
        online.add({"source": "hub", "repo": REPO, "revision": None})
    online.work()
    before = set(hub.downloaded)
    hub.requests.clear()
    with watched_progress() as shown:
        online.work()
    assert all(stage is not Stage.DOWNLOADING for stage, _ in shown)
    assert before
    assert hub.downloaded == set()


def test_a_model_that_the_disk_cannot_hold_is_not_begun(online: Bench, hub: FakeHub):
    """The sizes that the hub tells are weighed before a byte of it comes over; with room the next attempt succeeds."""
    hub.claimed_bytes = 10**16
    job_id = online.add({"source": "hub", "repo": REPO, "revision": None}).id
    online.work()
    with online.services.database.reading() as repository:
        error = repository.list_attempts(job_id)[0].error
    assert error is not None
    assert (error.code, error.stage) == ("insufficient_resources", "downloading")
    assert "disk" in error.message
    assert hub.downloaded == set()
    hub.claimed_bytes = None
    online.work()
    assert online.job(job_id).state is JobState.SUCCEEDED


def test_a_cached_model_needs_no_hub(online: Bench, hub: FakeHub):
    """With the hub away, a model at a commit that was fetched before is quantized out of the cache."""
    for _ in range(2):
        online.add({"source": "hub", "repo": REPO, "revision": COMMIT})
    online.work()
    assert hub.downloaded
    hub.shutdown()
    hub.server_close()
    online.work()
    with online.services.database.reading() as repository:
        assert repository.state_counts()[JobState.SUCCEEDED] == 2


@pytest.mark.parametrize(
    ("repo", "revision", "code"),
    [
        ("acme/absent", None, "model_not_found"),
        ("not a name/at all", None, "model_not_found"),
        (REPO, "v9", "model_revision_not_found"),
        (GATED_REPO, None, "model_forbidden"),
    ],
)
def test_what_the_hub_refuses_fails_the_job_with_a_remedy(online: Bench, repo: str, revision: str | None, code: str):
    """A wrong name, a wrong revision and a gated model end the job at the first attempt."""
    job_id = online.add({"source": "hub", "repo": repo, "revision": revision}).id
    online.work()
    job = online.job(job_id)
    assert job.error is not None
    assert (job.state, job.error.code) == (JobState.FAILED, code)
    assert job.error.hint


def test_a_hub_that_does_not_answer_is_asked_again_later(online: Bench):
    """A failing server is infrastructure: the job goes back to the queue."""
    job_id = online.add({"source": "hub", "repo": BROKEN_REPO, "revision": None}).id
    online.work()
    job = online.job(job_id)
    assert job.state is JobState.QUEUED
    with online.services.database.reading() as repository:
        error = repository.list_attempts(job_id)[0].error
    assert error is not None
    assert (error.code, error.stage) == ("hub_unavailable", "downloading")


def _events(bench: Bench, job_id: str) -> tuple[JobEvent, ...]:
    with bench.services.database.reading() as repository:
        return repository.list_events(job_id)


def test_the_owners_token_is_the_downloaders_alone(online: Bench, hub: FakeHub, capfd: pytest.CaptureFixture[str]):
    """It goes before the worker's; and is in no file under data and cache, the database among them, and in no log."""
    with online.services.database.transaction() as repository:
        repository.set_hub_token(OWNER, Vault.from_settings(online.services.settings).seal("hf_owners_secret"))
    job_id = online.add({"source": "hub", "repo": REPO, "revision": None}).id
    online.work()
    assert online.job(job_id).state is JobState.SUCCEEDED
    assert hub.tokens == {"Bearer hf_owners_secret"}
    for root in (online.services.settings.data_dir, online.services.settings.cache_dir):
        for path in (found for found in root.rglob("*") if found.is_file()):
            assert b"hf_owners_secret" not in path.read_bytes(), path
    out, err = capfd.readouterr()
    assert "hf_owners_secret" not in out + err
    with online.services.database.reading() as repository:
        lines = repository.list_log_lines(job_id, 2000)
    assert lines
    assert "hf_owners_secret" not in repr(lines)


def test_a_token_that_cannot_be_read_ends_the_job_with_the_reason(online: Bench):
    """Instead of asking the hub without it."""
    with online.services.database.transaction() as repository:
        repository.set_hub_token(OWNER, Vault(b"another service").seal("hf_owners_secret"))
    job_id = online.add({"source": "hub", "repo": REPO, "revision": None}).id
    online.work()
    error = online.job(job_id).error
    assert error is not None
    assert (error.code, error.retryable) == ("secret_unreadable", False)
