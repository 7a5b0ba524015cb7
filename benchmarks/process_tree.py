"""Runs a command and measures the whole of it: wall time, and peak resident memory of the process and its children."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

SAMPLE_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """seconds: from start to exit. cpu_seconds: of all its threads and children, user and system together.

    peak_rss_bytes: see `measure`. output: what it wrote to its standard output.
    """

    seconds: float
    cpu_seconds: float
    peak_rss_bytes: int
    output: str


def measure(command: Sequence[str]) -> Usage:
    """Runs the command to its end; raises SystemExit with its last words where it fails.

    Peak memory is the larger of two: the sum over the process tree, sampled 20 times a second, and the kernel's own
    record of the largest single process, which misses no short peak.
    """
    started_at = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        sampled = _sample_until_exit(psutil.Process(process.pid))
        # The output of these commands is a few lines, far less than a pipe holds, so nothing waits for a reader.
        output = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - started_at
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed with {process.returncode}.\n{output}")
    return Usage(
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_rss_bytes=max(sampled, usage.ru_maxrss * 1024),
        output=output,
    )


def _sample_until_exit(process: psutil.Process) -> int:
    peak = 0
    while process.status() != psutil.STATUS_ZOMBIE:
        peak = max(peak, _tree_rss(process))
        time.sleep(SAMPLE_SECONDS)
    return peak


def _tree_rss(process: psutil.Process) -> int:
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
