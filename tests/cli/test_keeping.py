"""`bitmill calibration` against a running service, and the words for how long things stay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.errors import ExitCode
from cli.keeping import kept_text
from tests.cli.conftest import Bitmill
from tests.ops.service import wait_until

OVER = {"cancelled", "failed"}
TIME = "2030-01-01T00:00:00Z"


def test_a_text_is_listed_shown_kept_and_deleted(at_service: Bitmill, tmp_path: Path):
    """A job's file stores it, and it stays behind the job."""
    text = tmp_path / "mine.txt"
    text.write_text("Once upon a time there was a calibration text.\n" * 20)
    asked = ("jobs", "submit", "--model", "acme/nowhere", "--group-size", "32", "--calib", str(text), "--json")
    job = json.loads(at_service(*asked).stdout)["id"]
    sets = json.loads(at_service("calibration", "list", "--json").stdout)["calibration_sets"]
    [set_id] = [one["id"] for one in sets if one["name"] == "mine.txt"]
    shown = at_service("calibration", "show", set_id)
    assert "tokens" in shown.stdout
    assert "warning:" in shown.stderr  # it says one thing twenty times
    assert json.loads(at_service("calibration", "show", set_id, "--json").stdout)["documents"] > 0
    assert at_service("calibration", "keep", set_id, "--until", TIME).returncode == ExitCode.OK
    assert f"until {TIME}" in at_service("calibration", "list").stdout
    assert json.loads(at_service("calibration", "keep", set_id, "--pin", "--json").stdout)["pinned"] is True
    at_service("jobs", "cancel", job)
    wait_until(lambda: json.loads(at_service("jobs", "get", job, "--json").stdout)["state"] in OVER)
    assert json.loads(at_service("calibration", "delete", set_id, "--json").stdout) == {"id": set_id, "deleted": True}
    assert at_service("calibration", "show", set_id).returncode == ExitCode.REFUSED


@pytest.mark.parametrize(
    ("pinned", "expires_at", "warned_at", "words"),
    [
        (True, TIME, None, "pinned"),
        (False, None, None, "-"),
        (False, TIME, None, f"until {TIME}"),
        (False, TIME, "2029-12-31T00:00:00Z", f"goes {TIME}"),
    ],
)
def test_a_list_says_how_long_each_stays(
    pinned: bool, expires_at: str | None, warned_at: str | None, words: str
) -> None:
    """A warning stands out."""
    cell = kept_text({"pinned": pinned, "expires_at": expires_at, "expiry_warned_at": warned_at})
    assert cell.plain == words
    assert (cell.style == "yellow") is (warned_at is not None)
