"""The table of faults in docs/reliability.md: complete, of tests that exist and run, with every test of a fault."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
OF_ROW = re.compile(r"test_((?:r\d+_)+)")
# What `make test` leaves out; `make soak` runs the last one.
LEFT_OUT = {"browser", "loaders", "soak", "skip", "skipif", "xfail"}
ROWS = {
    int(number): set(NAMED.findall(line))
    for line in (ROOT / "docs" / "reliability.md").read_text().splitlines()
    for number in re.findall(r"^\| R(\d+) \|", line)
}


@cache
def marks_by_test(path: Path) -> dict[str, set[str]]:
    """Returns the tests of a file with the names of their marks, those of the whole file included."""
    tree = ast.parse(path.read_text())
    of_all = {
        name
        for node in tree.body
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "pytestmark" for target in node.targets)
        for name in _marks(node.value)
    }
    return {
        node.name: of_all | {name for decorator in node.decorator_list for name in _marks(decorator)}
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def _marks(node: ast.expr) -> set[str]:
    return {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}


def test_every_fault_has_its_row():
    assert list(ROWS) == list(range(1, 24))


@pytest.mark.parametrize("number", ROWS)
def test_a_row_names_tests_that_exist_and_run(number: int):
    """In `make test`; of the soak, a slice runs there."""
    marks = {}
    for file, name in ROWS[number]:
        tests = marks_by_test(ROOT / file)
        assert name in tests, f"R{number}: {file} has no {name}"
        marks[name] = tests[name] & LEFT_OUT
    assert marks, f"R{number} names no test"
    assert any(not left_out for left_out in marks.values()), f"R{number}: no test of it runs in `make test`"
    assert all(left_out <= {"soak"} for left_out in marks.values()), f"R{number}: {marks}"


def test_every_test_of_a_fault_stands_in_its_row():
    """By its name: `test_r1_...`, or `test_r5_r6_...` for two."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in marks_by_test(path):
            if found := OF_ROW.match(name):
                for number in re.findall(r"\d+", found[1]):
                    assert (str(path.relative_to(ROOT)), name) in ROWS[int(number)], f"R{number} lacks {name}"
