"""A machine's rates are measured once and read from then on, by processes without torch too."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from core.preflight.rates import known_rates, rates_file
from core.solver.machine_rates import machine_rates


def test_rates_are_measured_once(tmp_path: Path) -> None:
    """What lies in the file is what is found; every rate is one, and torch keeps its threads."""
    assert known_rates(tmp_path) is None
    threads = torch.get_num_threads()
    measured = machine_rates(tmp_path)
    assert all(value > 0 for value in asdict(measured).values())
    assert (torch.get_num_threads(), measured.cores) == (threads, threads)
    assert known_rates(tmp_path) == measured
    other = replace(measured, numbers=1.5)
    rates_file(tmp_path).write_text(json.dumps(asdict(other)), "utf-8")
    assert machine_rates(tmp_path) == other


@pytest.mark.parametrize("spoiled", ["", "[]", "{}", '{"cores": 2}', "null"])
def test_a_file_that_does_not_say_it_is_measured_anew(tmp_path: Path, spoiled: str) -> None:
    """Torn, empty or of another version: it is replaced."""
    file = rates_file(tmp_path)
    file.parent.mkdir(parents=True)
    file.write_text(spoiled, "utf-8")
    assert known_rates(tmp_path) is None
    assert machine_rates(tmp_path) == known_rates(tmp_path)


def test_a_rate_of_nothing_is_none(tmp_path: Path) -> None:
    """Nothing is divided by zero."""
    measured = machine_rates(tmp_path)
    rates_file(tmp_path).write_text(json.dumps(asdict(replace(measured, grams=0.0))), "utf-8")
    assert known_rates(tmp_path) is None
