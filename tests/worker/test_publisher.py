"""Results on their way to a hub on this machine, by the real client in the real uploading process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.configs import RTNConfig
from store.errors import WrongStateError
from store.jobs import NewJob
from store.publications import NewPublication, Publication, PublicationState
from store.vault import Vault
from tests.worker.bench import OWNER, Bench
from tests.worker.fake_hub import COMMIT, FORBIDDEN_OWNER, FakeHub, fake_hub
from worker.publisher import Publisher

TOKEN = "hf_owners_secret"  # noqa: S105 - of nobody


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    (tmp_path / "hub").mkdir()
    with fake_hub(tmp_path / "hub") as served:
        yield served


@pytest.fixture
def online(bench: Bench, hub: FakeHub) -> Bench:
    """A bench whose worker uses that hub, with the owner's token."""
    settings = bench.services.settings.model_copy(update={"hub_endpoint": hub.endpoint})
    with bench.services.database.transaction() as repository:
        repository.set_hub_token(OWNER, Vault.from_settings(settings).seal(TOKEN))
    return Bench(replace(bench.services, settings=settings), bench.tiny_model)


def publish(bench: Bench, repo: str = "acme/result") -> str:
    """Makes a result and asks for its publication; returns the job's id."""
    job_id = bench.submit().id
    bench.work()
    new = NewPublication(job_id=job_id, owner_key_id=OWNER, repo=repo, private=True)
    with bench.services.database.transaction() as repository:
        repository.add_publication(new)
    return job_id


def newest(bench: Bench, job_id: str) -> Publication:
    with bench.services.database.reading() as repository:
        return repository.list_publications(job_id)[0]


def test_every_file_arrives_with_the_owners_token(online: Bench, hub: FakeHub, capfd: pytest.CaptureFixture[str]):
    """Byte for byte; the repository is made private; nothing stays behind, and no log has the token."""
    job_id = publish(online)
    assert Publisher(online.services).round()
    ended = newest(online, job_id)
    assert (ended.state, ended.commit, ended.error) == (PublicationState.PUBLISHED, COMMIT, None)
    with online.services.database.reading() as repository:
        files = repository.list_artifacts(job_id)
    expected = {file.name: b"".join(online.services.artifacts.open(file.sha256)) for file in files}
    assert {name: hub.uploaded.get(name) for name in expected} == expected
    assert [(wish["name"], wish["organization"], wish["visibility"]) for wish in hub.created] == [
        ("result", "acme", "private")
    ]
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert not any((online.services.settings.data_dir / "publications").rglob("*"))
    out, err = capfd.readouterr()
    assert TOKEN not in out + err
    assert not Publisher(online.services).round()


def test_what_the_hub_refuses_is_final_and_told(online: Bench):
    job_id = publish(online, f"{FORBIDDEN_OWNER}/result")
    Publisher(online.services).round()
    ended = newest(online, job_id)
    assert (ended.state, ended.attempts) == (PublicationState.FAILED, 1)
    assert "hub_refused" in str(ended.error)
    assert "You may not write here" in str(ended.error)


def test_a_hub_that_fails_is_asked_again_later(online: Bench, hub: FakeHub):
    """And in the end the publication is there."""
    hub.failing_writes = 10_000
    job_id = publish(online)
    publisher = Publisher(online.services)
    assert publisher.round()
    waiting = newest(online, job_id)
    assert (waiting.state, waiting.attempts) == (PublicationState.PENDING, 1)
    assert "hub_unavailable" in str(waiting.error)
    assert not publisher.round()
    hub.failing_writes = 0
    with online.services.database.transaction() as repository:
        assert repository.renew_publication(waiting, -1)
    assert publisher.round()
    assert newest(online, job_id).state is PublicationState.PUBLISHED


def test_a_lost_worker_s_publication_is_taken_again_and_the_old_one_has_no_say(online: Bench):
    """The attempt that lost its lease can neither hold on nor end it."""
    job_id = publish(online)
    with online.services.database.transaction() as repository:
        lost = repository.take_publication(-1)
        again = repository.take_publication(60)
    assert lost is not None
    assert again is not None
    assert (again.id, again.attempts) == (lost.id, 2)
    with online.services.database.transaction() as repository:
        assert not repository.renew_publication(lost, 60)
        assert not repository.end_publication(lost, commit="x", error=None, retry_seconds=None)
        assert repository.renew_publication(again, -1)
    assert Publisher(online.services).round()
    assert newest(online, job_id).attempts == 3


def test_without_files_or_token_nothing_is_sent(online: Bench, hub: FakeHub):
    """A job that is not over cannot be published; a token that was taken back ends it."""
    job_id = publish(online)
    waiting = online.submit()
    with pytest.raises(WrongStateError), online.services.database.transaction() as repository:
        repository.add_publication(NewPublication(job_id=waiting.id, owner_key_id=OWNER, repo="a/b", private=True))
    with online.services.database.transaction() as repository:
        repository.remove_hub_token(OWNER)
    Publisher(online.services).round()
    assert "hub_token_missing" in str(newest(online, job_id).error)
    assert hub.requests == []


def test_a_job_may_ask_for_it_when_it_is_submitted(online: Bench, hub: FakeHub):
    """The request comes into being with the result, in one transaction."""
    online.model()
    spec = {
        "model": {"source": "path", "root": "models", "path": "tiny"},
        "quantization": RTNConfig(group_size=32).to_dict(),
        "calibration": None,
        "publish_to": {"repo": "acme/later", "private": True},
    }
    with online.services.database.transaction() as repository:
        job_id = repository.add_job(NewJob(owner_key_id=OWNER, spec=spec, calibration_set_id=None))[0].id
    online.work()
    assert newest(online, job_id).repo == "acme/later"
    assert Publisher(online.services).round()
    assert newest(online, job_id).state is PublicationState.PUBLISHED
