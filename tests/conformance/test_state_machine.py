"""A random walk over everything that users, workers and the sweeper may do, compared with a model in plain Python."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import update

from store.errors import LeaseLostError, WrongStateError
from store.jobs import HELD_STATES, TRANSITIONS, JobProgress, JobState, Stage
from store.repository.clock import database_time
from store.session import Database
from store.tables import jobs
from tests.conformance.samples import BROKEN, FILES, submit

MAX_ATTEMPTS = 2
FAR_SECONDS = 3600


class Deadline(Enum):
    """Where a job's deadline is."""

    NONE = None
    AHEAD = FAR_SECONDS
    PASSED = -1


@dataclass(slots=True)
class Model:
    """What the job must be. expired: whether its lease has run out. The newest lease token equals `attempt`.

    renewed: where a retry puts the deadline, which is as long as the submit's.
    """

    renewed: Deadline
    deadline: Deadline
    state: JobState = JobState.QUEUED
    attempt: int = 0
    failures: int = 0
    expired: bool = False


class JobMachine(RuleBasedStateMachine):
    """Every rule does one thing in one transaction; a refusal must leave the job as it was."""

    database: ClassVar[Database]

    @initialize(deadline=st.sampled_from([*Deadline, Deadline.AHEAD]))
    def start(self, deadline: Deadline) -> None:
        """Submits the job."""
        self.model = Model(deadline, deadline)
        self.job_id = submit(
            self.database, max_attempts=MAX_ATTEMPTS, queue_class="walk", deadline_seconds=deadline.value
        ).id

    @precondition(lambda self: self.model.deadline is Deadline.AHEAD)
    @rule()
    def pass_the_deadline(self) -> None:
        """Time goes by."""
        with self.database.transaction() as repository:
            passed = update(jobs).where(jobs.c.id == self.job_id).values(deadline_at=database_time(-1))
            repository._connection.execute(passed)
        self.model.deadline = Deadline.PASSED

    @rule(expired=st.booleans())
    def claim(self, *, expired: bool) -> None:
        """A claim takes the job exactly when it is queued and in time."""
        with self.database.transaction() as repository:
            job = repository.claim("wrk", "walk", lease_seconds=-1 if expired else 600)
        in_time = self.model.deadline is not Deadline.PASSED
        assert (job is not None) == (self.model.state is JobState.QUEUED and in_time)
        if job is not None:
            self.model.state, self.model.expired = JobState.RUNNING, expired
            self.model.attempt += 1

    @precondition(lambda self: self.model.attempt > 0)
    @rule(
        age=st.sampled_from([0, 0, 0, 1]), action=st.sampled_from(["beat", "succeed", "fail", "drain", "lose", "stop"])
    )
    def work(self, age: int, action: str) -> None:
        """A worker acts under the newest token (age 0) or an older one; only the newest of a held job counts."""
        token = self.model.attempt - age
        if age > 0 or self.model.state not in HELD_STATES:
            with pytest.raises(LeaseLostError):
                self._act(token, action)
            return
        if (action, self.model.state) in {("succeed", JobState.CANCELLING), ("stop", JobState.RUNNING)}:
            with pytest.raises(WrongStateError):
                self._act(token, action)
            return
        self._act(token, action)
        self._follow(action)

    def _act(self, token: int, action: str) -> None:
        with self.database.transaction() as repository:
            match action:
                case "beat":
                    progress = JobProgress(fraction=0.5)
                    repository.heartbeat(self.job_id, token, stage=Stage.QUANTIZING, progress=progress)
                case "succeed":
                    repository.succeed(self.job_id, token, FILES)
                case "fail":
                    repository.fail(self.job_id, token, BROKEN)
                case "drain":
                    repository.release(self.job_id, token)
                case "lose":
                    repository.release(self.job_id, token, BROKEN, count_failure=True)
                case "stop":
                    repository.cancelled(self.job_id, token)

    def _follow(self, action: str) -> None:
        if action == "beat":
            self.model.expired = False
        elif self.model.state is JobState.CANCELLING:
            self.model.state = JobState.CANCELLED
        elif action == "succeed":
            self.model.state = JobState.SUCCEEDED
        elif action == "drain":
            self.model.state = JobState.QUEUED
        else:
            self._fail_once(final=action == "fail")

    def _fail_once(self, *, final: bool) -> None:
        self.model.failures += 1
        spent = final or self.model.failures >= MAX_ATTEMPTS
        self.model.state = JobState.FAILED if spent else JobState.QUEUED

    @rule()
    def cancel(self) -> None:
        """A user's cancel works until the job has ended in another way."""
        if self.model.state in {JobState.SUCCEEDED, JobState.FAILED}:
            with pytest.raises(WrongStateError), self.database.transaction() as repository:
                repository.request_cancel(self.job_id)
            return
        with self.database.transaction() as repository:
            repository.request_cancel(self.job_id)
        followed = {JobState.QUEUED: JobState.CANCELLED, JobState.RUNNING: JobState.CANCELLING}
        self.model.state = followed.get(self.model.state, self.model.state)

    @rule()
    def retry(self) -> None:
        """A user's retry works on a failed or cancelled job and changes nothing on a queued one."""
        if self.model.state in {*HELD_STATES, JobState.SUCCEEDED}:
            with pytest.raises(WrongStateError), self.database.transaction() as repository:
                repository.retry(self.job_id)
            return
        with self.database.transaction() as repository:
            repository.retry(self.job_id)
        if self.model.state is not JobState.QUEUED:
            self.model.state, self.model.failures = JobState.QUEUED, 0
            self.model.deadline = self.model.renewed

    @rule()
    def sweep_overdue(self) -> None:
        """The sweeper fails the job exactly when it waits beyond its deadline; no attempt is counted for it."""
        with self.database.transaction() as repository:
            overdue = repository.fail_overdue()
        due = self.model.deadline is Deadline.PASSED and self.model.state is JobState.QUEUED
        assert (self.job_id in overdue) == due
        if due:
            self.model.state = JobState.FAILED
            with self.database.reading() as repository:
                error = repository.get_job(self.job_id).error
            assert error is not None
            assert error.code == "deadline_exceeded"

    @rule()
    def sweep(self) -> None:
        """The sweeper takes the job exactly when it is held under a lease that ran out."""
        with self.database.transaction() as repository:
            rescued = repository.rescue_expired()
        due = self.model.expired and self.model.state in HELD_STATES
        assert (self.job_id in rescued) == due
        if due and self.model.state is JobState.CANCELLING:
            self.model.state = JobState.CANCELLED
        elif due:
            self._fail_once(final=False)

    @invariant()
    def database_agrees(self) -> None:
        """The row is what the model says, the history tells the same story, and it has no gap."""
        with self.database.reading() as repository:
            job = repository.get_job(self.job_id)
            events = repository.list_events(self.job_id)
            attempts = repository.list_attempts(self.job_id)
            files = repository.list_artifacts(self.job_id)
        assert (job.state, job.attempt, job.failures) == (self.model.state, self.model.attempt, self.model.failures)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        states = [JobState(event.payload["state"]) for event in events]
        assert states[-1] is job.state
        assert all(after in TRANSITIONS[before] for before, after in pairwise(states))
        assert [attempt.number for attempt in attempts] == list(range(1, job.attempt + 1))
        assert sum(attempt.outcome is None for attempt in attempts) == (job.state in HELD_STATES)
        assert len(files) == (len(FILES) if job.state is JobState.SUCCEEDED else 0)

    def teardown(self) -> None:
        """Ends the job, so that the next walk's claims find only their own."""
        with self.database.transaction() as repository:
            job = repository.get_job(self.job_id)
            if job.state in {JobState.QUEUED, JobState.RUNNING}:
                job = repository.request_cancel(self.job_id)
            if job.state is JobState.CANCELLING:
                repository.cancelled(self.job_id, job.lease_token)


def test_database_follows_the_model(database: Database) -> None:
    """Whatever the order of calls, job, attempts, events and files agree with the model after each."""

    class Machine(JobMachine):
        pass

    Machine.database = database
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )
