"""Runs a command and measures the whole of it: wall time, and peak resident memory of the process and its children."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_SECONDS = 0.05
LAST_WORDS_BYTES = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """seconds: from start to exit. cpu_seconds: of all its threads and children, user and system together.

    peak_rss_bytes: see `measure`.
    """

    seconds: float
    cpu_seconds: float
    peak_rss_bytes: int


def measure(command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Usage:
    """Runs the command to its end; raises SystemExit with its last words where it fails.

    env, cwd: None are this process's.

    Peak memory is the larger of two: the sum over the process tree, sampled 20 times a second, and the high-water mark
    of the process itself, which misses no short peak. (`ru_maxrss` is of no use: it begins with what this one holds.)
    """
    started_at = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=cwd)
        sampled = _sample_until_exit(psutil.Process(process.pid))
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - started_at
        if process.returncode != 0:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
            last_words = log.read().decode(errors="replace")
            raise SystemExit(f"{shlex.join(command)} failed with {process.returncode}.\n{last_words}")
    return Usage(
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_rss_bytes=sampled,
    )


def _sample_until_exit(process: psutil.Process) -> int:
    peak = 0
    while process.status() != psutil.STATUS_ZOMBIE:
        peak = max(peak, _tree_rss(process), _high_water(process.pid))
        time.sleep(SAMPLE_SECONDS)
    return peak


def _high_water(pid: int) -> int:
    """Returns the peak resident bytes of a process since it began its program; 0 where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def _tree_rss(process: psutil.Process) -> int:
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
