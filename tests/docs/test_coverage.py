"""Every command in a shell block of a page is run by a test, or stands here with the reason why none does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, blocks
from tests.docs.test_pages import name_of

SHELLS = {"sh", "bash"}
# Run as they stand, or by a test of their own in test_runs.py.
RUN = {"run", "export", "api", "worker"}
NOT_RUN = {
    r"make (demo|test|bench|bench-service|peers)\b.*": "minutes or hours; targets are compared with the Makefile",
    r"make install": "this environment is what it makes",
    r"\.venv/bin/bitmill up --demo-model": "`up` runs beside these tests; the model comes from a registry",
    r"docker compose (build|up)\b.*": "needs Docker; the services named are compared with docker-compose.yml",
    r"docker compose (exec|run)\b.*": "run on this machine's programs in test_runs.py, in place of containers",
    r"(bash|python|QUANT_METHOD=\S+ .*python) examples/.*": "run by test_examples.py on a tiny model",
    r"python benchmarks/.*": "measures for minutes, on a text that is not part of the repository",
    r"bitmill run .* --calib hub:wikitext2": "needs the hub; tests/worker/test_calibration.py has one of its own",
    r"bitmill run .* --calib self .*": "minutes of writing; tests/core/evaluation/test_self_text.py is short",
    r"vllm serve .*": "needs a GPU",
    r"pip install .*": "packages with a torch of their own; make test-loaders loads artifacts with them",
}


def commands(page: Path) -> Iterator[str]:
    """Yields the commands of a page's shell blocks that no test runs from the page, comments left out."""
    for block in blocks(page):
        if block.language in SHELLS and block.mark not in RUN:
            for line in block.text.replace("\\\n", " ").splitlines():
                if command := re.sub(r"(^|\s+)#.*", "", line).strip():
                    yield command


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_command_is_run_or_has_a_reason_not_to_be(page: Path):
    """Whoever shows a new one marks it to be run, or says here why it cannot be."""
    for command in commands(page):
        assert any(re.fullmatch(pattern, command) for pattern in NOT_RUN), f"{name_of(page)}: {command}"


def test_no_reason_is_left_over():
    """Each stands for some command that is shown."""
    shown = [command for page in PAGES for command in commands(page)]
    for pattern in NOT_RUN:
        assert any(re.fullmatch(pattern, command) for command in shown), pattern
