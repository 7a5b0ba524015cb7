"""What this machine has for a job: memory, device, and what its processor is called."""

from __future__ import annotations

import platform
from pathlib import Path

import psutil

from store.workers import Capability


def capability_of_this_machine(device: str) -> Capability:
    """Returns what a job may count on here: the machine's memory, or its control group's where that is less."""
    limit = _first_line(Path("/sys/fs/cgroup/memory.max"))
    limits = [int(limit)] if limit.isdecimal() else []
    return Capability(device=device, memory_bytes=min([psutil.virtual_memory().total, *limits]))


def processor_name() -> str:
    """Returns the processor's name as the kernel tells it, else the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _first_line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
