"""The state diagram as values."""

from __future__ import annotations

import pytest

from store.jobs import HELD_STATES, TERMINAL_STATES, TRANSITIONS, JobState, model_name


def test_every_state_has_its_arrows() -> None:
    """The diagram speaks of every state, and every state can be reached from queued."""
    assert set(TRANSITIONS) == set(JobState)
    reached = {JobState.QUEUED}
    for _ in JobState:
        reached |= {after for before in reached for after in TRANSITIONS[before]}
    assert reached == set(JobState)


@pytest.mark.parametrize("state", JobState)
def test_terminal_states_are_left_by_a_retry_only(state: JobState) -> None:
    """From a terminal state there is at most the way back to queued; others all go on."""
    assert state.terminal == (state in TERMINAL_STATES) == (TRANSITIONS[state] <= {JobState.QUEUED})
    assert not state.terminal or state not in HELD_STATES


def test_model_name() -> None:
    """A list is filtered by the hub name or the submitted path."""
    assert model_name({"model": {"source": "hub", "repo": "org/name", "revision": "main"}}) == "org/name"
    assert model_name({"model": {"source": "path", "path": "models/tiny", "root": "data"}}) == "models/tiny"
