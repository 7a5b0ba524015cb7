"""The limit of open files is raised to what streams need, within what the system allows."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from api.limits import raise_open_files
soft, hard, streams = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
raise_open_files(streams)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "streams", "expected"),
    [(256, 900, 100, 612), (256, 600, 100, 600), (800, 900, 100, 800)],
)
def test_the_limit_rises_as_far_as_it_may(soft: int, hard: int, streams: int, expected: int):
    """In a process of its own: the limit is the process's. It warns where there is less room than promised."""
    command = [sys.executable, "-c", PROGRAM, str(soft), str(hard), str(streams)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(answer.stdout.splitlines()[-1]) == expected
    assert ("open_files_limited" in answer.stdout) == (expected < streams + 512)
