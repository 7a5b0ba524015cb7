"""What a child's death means."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from worker.exits import Fault, failure_of
from worker.process import ChildExit, kernel_oom_kills


@pytest.mark.parametrize(
    ("returncode", "oom_kills", "fault", "code"),
    [
        (7, 0, None, "child_exited"),
        (0, 0, None, "child_exited"),
        (-signal.SIGSEGV, 0, None, "child_crashed"),
        (-signal.SIGBUS, 0, None, "child_crashed"),
        (-signal.SIGABRT, 0, None, "child_crashed"),
        (-signal.SIGKILL, 0, None, "child_killed"),
        (-signal.SIGTERM, 0, None, "child_killed"),
        (-signal.SIGKILL, 1, None, "out_of_memory"),
        (-signal.SIGKILL, 0, Fault.FROZEN, "child_hung"),
        (-signal.SIGKILL, 0, Fault.STALLED, "child_hung"),
        (-signal.SIGKILL, 0, Fault.GARBLED, "child_protocol"),
    ],
)
def test_every_death_has_a_code(returncode: int, oom_kills: int, fault: Fault | None, code: str):
    exit_ = ChildExit(returncode=returncode, oom_kills=oom_kills, stderr_tail="")
    failure = failure_of(exit_, fault)
    assert failure.code == code
    assert failure.message
    assert failure.hint


def test_the_kernels_counter_is_read_from_the_first_source_that_has_it(tmp_path: Path):
    """A control group's own counter goes before the machine's; without either nothing was counted."""
    group, machine = tmp_path / "memory.events", tmp_path / "vmstat"
    machine.write_text("pgfault 12\noom_kill 4\n")
    assert kernel_oom_kills((group, machine)) == 4
    group.write_text("low 0\noom 9\noom_kill 2\n")
    assert kernel_oom_kills((group, machine)) == 2
    assert kernel_oom_kills((tmp_path / "absent",)) == 0
