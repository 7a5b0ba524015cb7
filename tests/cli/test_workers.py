"""`bitmill workers` against a running service."""

from __future__ import annotations

import json

from cli.errors import ExitCode
from tests.cli.conftest import Bitmill


def test_the_worker_of_the_service_is_shown_drained_and_resumed(at_service: Bitmill):
    """As a table and as JSON; an unknown id is refused."""
    listed = json.loads(at_service("workers", "list", "--json").stdout)
    [worker] = listed["workers"]
    assert [room["slots"] for room in listed["capacity"]] == [1]
    table = at_service("workers", "list").stdout
    assert worker["id"] in table
    assert "slots free" in table
    try:
        assert "drain" in at_service("workers", "drain", worker["id"]).stdout
    finally:
        assert json.loads(at_service("workers", "resume", worker["id"], "--json").stdout)["state"] in {"idle", "busy"}
    assert at_service("workers", "drain", "none").returncode == ExitCode.REFUSED
