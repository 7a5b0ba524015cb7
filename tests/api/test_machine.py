"""Estimates have a time as soon as a run on the API's machine has measured what that does in a second."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from api.machine import Machine
from core.preflight.rates import rates_file

RATES = {
    "cores": 2.0,
    "float32_products": 1e11,
    "bfloat16_products": 2e11,
    "grams": 2e11,
    "solved_steps": 3e10,
    "memory_bytes": 1e11,
    "hashed_bytes": 1e9,
    "numbers": 5e7,
}


def test_rates_are_looked_for_until_they_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not at every question; once known they stay."""
    machine = Machine(tmp_path)
    assert machine.rates() is None
    file = rates_file(tmp_path)
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(RATES), "utf-8")
    assert machine.rates() is None
    monkeypatch.setattr("api.machine.LOOK_SECONDS", 0.0)
    found = machine.rates()
    assert found is not None
    assert found.numbers == 5e7
    file.unlink()
    assert machine.rates() == found
