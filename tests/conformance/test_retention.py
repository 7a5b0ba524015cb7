"""What goes when its time has come, and what stays, on SQLite and PostgreSQL alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from store.errors import NotFoundError, WrongStateError
from store.jobs import EventKind, Job, JobState, NewCalibrationSet
from store.kept import KeptKind
from store.publications import NewPublication
from store.session import Database
from tests.conformance.samples import FILES, submit, submit_and_claim

DAY = 86_400.0
PAST = datetime.now(UTC) - timedelta(days=1)


def succeed(database: Database, owner: str = "key_a") -> Job:
    job = submit_and_claim(database, owner)
    with database.transaction() as repository:
        return repository.succeed(job.id, job.lease_token, FILES)


def kinds(database: Database, job: Job) -> list[str]:
    with database.reading() as repository:
        return [event.kind for event in repository.list_events(job.id)]


def files(database: Database, job: Job) -> int:
    with database.reading() as repository:
        return len(repository.list_artifacts(job.id))


def test_files_get_a_time_a_warning_and_an_end(database: Database) -> None:
    """Each once, each in the history; the job itself stays."""
    job = succeed(database)
    with database.transaction() as repository:
        assert repository.assign_expiry(7 * DAY, DAY) == 1
        assert repository.assign_expiry(7 * DAY, DAY) == 0
        dated = repository.get_job(job.id)
        assert dated.expires_at is not None
        assert job.finished_at is not None
        assert dated.expires_at == job.finished_at + timedelta(days=7)
        assert dated.version > job.version
        assert repository.warn_of_expiry(DAY) == ()
        assert repository.warn_of_expiry(8 * DAY) == (job.id,)
        assert repository.warn_of_expiry(8 * DAY) == ()
        assert repository.expire_artifacts() == ()
    assert kinds(database, job)[-1] == EventKind.ARTIFACTS_EXPIRING
    assert files(database, job) == 2
    with database.transaction() as repository:
        repository.keep_job(job.id, {"expires_at": PAST})
        assert repository.expire_artifacts() == ()  # a new time is warned of first
        assert repository.warn_of_expiry(0) == (job.id,)
        assert repository.expire_artifacts() == (job.id,)
        assert repository.expire_artifacts() == ()
        assert repository.get_job(job.id).state is JobState.SUCCEEDED
        assert repository.assign_expiry(7 * DAY, DAY) == 0
    assert kinds(database, job)[-1] == EventKind.ARTIFACTS_EXPIRED
    assert files(database, job) == 0


def test_a_pin_keeps_files_whatever_the_time_says(database: Database) -> None:
    """And an old job that meets a new rule is given the notice, not its past."""
    job = succeed(database)
    with database.transaction() as repository:
        repository.keep_job(job.id, {"pinned": True, "expires_at": PAST})
        assert repository.warn_of_expiry(DAY) == ()
        assert repository.expire_artifacts() == ()
        repository.keep_job(job.id, {"pinned": False, "expires_at": None})
        assert repository.assign_expiry(0.001, DAY) == 1
        expires_at = repository.get_job(job.id).expires_at
        assert expires_at is not None
        assert expires_at > datetime.now(UTC) + timedelta(hours=12)
        with pytest.raises(NotFoundError):
            repository.keep_job(job.id, {"pinned": True}, "key_b")
        assert repository.keep_job(job.id, {}) == repository.get_job(job.id)


def test_a_late_warning_gives_the_whole_notice(database: Database) -> None:
    """Where a pin is taken off behind the time, or no worker ran: the warning comes first, and moves the time."""
    job = succeed(database)
    with database.transaction() as repository:
        repository.keep_job(job.id, {"expires_at": PAST})
        assert repository.warn_of_expiry(DAY) == (job.id,)
        warned = repository.get_job(job.id)
        assert warned.expires_at is not None
        assert warned.expiry_warned_at is not None
        assert warned.expires_at == warned.expiry_warned_at + timedelta(days=1)
        assert repository.expire_artifacts() == ()
        assert repository.keep_job(job.id, {"pinned": True}).expiry_warned_at is None
        repository.keep_job(job.id, {"pinned": False})
        assert repository.expire_artifacts() == ()
        assert repository.warn_of_expiry(DAY) == (job.id,)
    assert kinds(database, job).count(EventKind.ARTIFACTS_EXPIRING) == 2
    with database.reading() as repository:
        told = [one.payload for one in repository.list_events(job.id) if one.kind == EventKind.ARTIFACTS_EXPIRING]
    assert told[0]["expires_at"] == warned.expires_at.isoformat()


def test_files_wait_for_their_upload_to_the_hub(database: Database) -> None:
    """A publication that was asked for in time finds them; once it has ended they go."""
    job = succeed(database)
    with database.transaction() as repository:
        repository.keep_job(job.id, {"expires_at": PAST})
        repository.warn_of_expiry(0)
        repository.add_publication(NewPublication(job_id=job.id, owner_key_id="key_a", repo="acme/tiny", private=True))
        assert repository.expire_artifacts() == ()
        taken = repository.take_publication(60)
        assert taken is not None
        assert repository.expire_artifacts() == ()
        repository.end_publication(taken, commit=None, error="refused", retry_seconds=None)
        assert repository.expire_artifacts() == (job.id,)


def test_a_text_goes_unless_it_is_pinned_needed_or_the_services_own(database: Database) -> None:
    """Jobs that are over forget a text; one that waits keeps it."""
    with database.transaction() as repository:
        sets = {
            name: repository.add_calibration_set(
                NewCalibrationSet(
                    owner_key_id="key_a", name=name, format="text", sha256=digit * 64, size_bytes=1, documents=1
                )
            ).id
            for name, digit in {"free": "1", "pinned": "2", "needed": "3", "builtin": "4", "used": "5"}.items()
        }
        repository.keep_calibration_set(sets["pinned"], {"pinned": True}, "key_a")
    waiting = submit(database, calibration_set_id=sets["needed"])
    over = submit(database, calibration_set_id=sets["used"])
    with database.transaction() as repository:
        repository.request_cancel(over.id)
        assert repository.date_kept(KeptKind.CALIBRATION_SET, 3600, 0) == 3
        for set_id in sets.values():
            repository.keep_calibration_set(set_id, {"expires_at": PAST})
        warned = repository.warn_of_kept(KeptKind.CALIBRATION_SET, 0)
        assert set(warned) == {sets["free"], sets["needed"], sets["used"]}
        assert set(repository.expire_kept(KeptKind.CALIBRATION_SET)) == {sets["free"], sets["used"]}
        assert repository.get_job(over.id).calibration_set_id is None
        with pytest.raises(WrongStateError):
            repository.delete_calibration_set(sets["needed"])
        repository.request_cancel(waiting.id)
        with pytest.raises(NotFoundError):
            repository.delete_calibration_set(sets["needed"], "key_b")
        repository.delete_calibration_set(sets["needed"], "key_a")
        assert {one.name for one in repository.list_calibration_sets()} == {"pinned", "builtin"}


def test_a_hub_token_is_its_owners(database: Database) -> None:
    with database.transaction() as repository:
        repository.set_hub_token("key_a", "first")
        repository.set_hub_token("key_a", "second")
        found = repository.hub_token("key_a")
        assert found is not None
        assert found[0] == "second"
        assert repository.hub_token("key_b") is None
        repository.remove_hub_token("key_a")
        repository.remove_hub_token("key_a")
        assert repository.hub_token("key_a") is None
