"""The page that operators read names a test for every row of the catalogue, and those tests exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| (R\d+) \|.*$", (ROOT / "docs" / "reliability.md").read_text(), re.MULTILINE)
TESTS = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "reliability.md").read_text())


def test_every_row_has_a_test():
    """R1 to R23, in order, each with at least one test named beside it."""
    assert [f"R{number}" for number in range(1, 24)] == ROWS
    for line in (ROOT / "docs" / "reliability.md").read_text().splitlines():
        if re.match(r"\| R\d+ \|", line):
            assert "::test_" in line, line


def test_every_test_that_is_named_exists():
    """Renaming one without the page is noticed here."""
    assert TESTS
    for path, name in TESTS:
        tree = ast.parse((ROOT / path).read_text())
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert name in functions, f"{path} has no {name}"
