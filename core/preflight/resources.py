"""Estimates what a run needs in memory and on disk, and refuses a machine that lacks it before the work starts.

Standard library only.
"""

from __future__ import annotations

import os
import resource
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.configs import DEFAULT_FORMATS, CalibrationConfig, QuantizationConfig
from core.errors import InsufficientResourcesError
from core.preflight.duration import expected_seconds
from core.preflight.memory import PROCESS_BYTES, activation_itemsize, float_share, memory_need

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from core.preflight.rates import MachineRates
    from core.preflight.source import ModelFacts

SCALE_BYTES = 2  # float16 per group and row
INDEX_BYTES = 4  # int32 per input
SIDE_FILES_BYTES = 32 * 10**6  # tokenizer, configs, report, model card
SAFETY = 1.1
MAX_SHARD_BYTES = 4 << 30  # the largest file that a run writes, unless one tensor is larger


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a run needs. disk_bytes: at its peak, work folder and artifact together.

    least_ram_bytes: where nothing of what calibration batches hold stays in memory.
    seconds: from the start of its process to the finished artifact, on a machine that has nothing else to do; None
    where its rates are not known.
    """

    ram_bytes: int
    least_ram_bytes: int
    disk_bytes: int
    artifact_bytes: int
    seconds: float | None = None


def estimate(
    facts: ModelFacts,
    config: QuantizationConfig,
    calibration: CalibrationConfig | None,
    formats: Sequence[str] = DEFAULT_FORMATS,
    *,
    activation_memory: int | None = None,
    rates: MachineRates | None = None,
) -> Estimate:
    """Returns an estimate from shapes alone, and from what the machine does in a second where that is known.

    Memory: see `core.preflight.memory`; activation_memory limits what calibration batches take of it. Disk: the
    finished blocks and the artifact that is built from them in each format, the activations of two blocks for a
    resume, and those that have no room in memory.
    """
    facts = facts.planned(config)
    need = memory_need(facts, config, calibration)
    tokens = calibration.tokens if calibration is not None else 0
    activations = tokens * facts.hidden_size * activation_itemsize(facts) * (1 + float_share(config))
    spilled = 0 if activation_memory is None else max(need.activation_bytes - activation_memory, 0)
    kept, packed = _artifact_bytes(facts, config)
    artifacts = len(formats) * (kept + packed)
    return Estimate(
        ram_bytes=need.within(activation_memory),
        least_ram_bytes=need.within(0),
        disk_bytes=int(SAFETY * (packed + artifacts + 2 * activations)) + spilled,
        artifact_bytes=artifacts,
        seconds=None if rates is None else expected_seconds(facts, config, calibration, rates, len(formats)),
    )


def generation_bytes(facts: ModelFacts) -> int:
    """Returns the memory that it takes to let the float model write text: all of it in its stored dtype."""
    return PROCESS_BYTES + int(SAFETY * facts.total_bytes)


def check_disk(path: Path, needed_bytes: int) -> None:
    """Raises InsufficientResourcesError where the file system of `path` has less room; the folder need not exist."""
    check_disks({path: needed_bytes})


def check_disks(needed_bytes: Mapping[Path, int]) -> None:
    """Does the same for several folders; what goes to one file system is added up."""
    needed: Counter[int] = Counter()
    folders: dict[int, Path] = {}
    for path, count in needed_bytes.items():
        folder = _existing(path)
        device = folder.stat().st_dev
        needed[device] += count
        folders[device] = folder
    for device, folder in folders.items():
        available = shutil.disk_usage(folder).free
        if available < needed[device]:
            raise InsufficientResourcesError("disk", needed[device], available)


def check_file_size(largest_bytes: int) -> None:
    """Raises InsufficientResourcesError where the process may not write a file that large (RLIMIT_FSIZE)."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit not in (resource.RLIM_INFINITY, -1) and limit < largest_bytes:
        raise InsufficientResourcesError("file size (ulimit -f)", largest_bytes, limit)


def check_memory(needed_bytes: int) -> None:
    """Raises InsufficientResourcesError where machine, control group or RLIMIT_AS leave less memory than needed."""
    available = available_memory()
    if available < needed_bytes:
        raise InsufficientResourcesError("memory", needed_bytes, available)


def available_memory() -> int:
    """Returns the bytes that this process can still take: the least of what machine, control group and limits say."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    limits = [] if limit in (resource.RLIM_INFINITY, -1) else [limit]
    return min([_machine_available(), *limits, *_control_group_available()])


def default_activation_memory() -> int:
    """Returns what activations may take by default: half of what is free, the rest is for blocks and Hessians."""
    return available_memory() // 2


def _artifact_bytes(facts: ModelFacts, config: QuantizationConfig) -> tuple[int, int]:
    """Returns what is copied as it is with the files beside, and the packed linears, which blocks hold before that."""
    parts = {name: config.for_linear(name) for name in facts.linears}
    packed = {name: _packed_bytes(*facts.linears[name], part) for name, part in parts.items() if part is not None}
    replaced = (facts.tensors.get(f"{name}.weight") for name in packed)  # a tied head has no tensor of its own
    kept = facts.total_bytes - sum(tensor.nbytes for tensor in replaced if tensor is not None)
    return kept + SIDE_FILES_BYTES, sum(packed.values())


def _packed_bytes(rows: int, columns: int, config: QuantizationConfig) -> int:
    groups = 1 if config.group_size == -1 else -(-columns // config.group_size)
    codes = rows * columns * config.bits // 8
    zeros = rows * groups * config.bits // 8
    return codes + zeros + rows * groups * SCALE_BYTES + columns * INDEX_BYTES


def _existing(path: Path) -> Path:
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def _machine_available() -> int:
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    # Without /proc the machine's whole memory is the best that can be said.
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _control_group_available() -> list[int]:
    """Returns what the control group (version 2, as containers see it) leaves; nothing where there is no limit."""
    limit = next(iter(_lines(Path("/sys/fs/cgroup/memory.max"))), "max").strip()
    used = next(iter(_lines(Path("/sys/fs/cgroup/memory.current"))), "0").strip()
    return [max(int(limit) - int(used), 0)] if limit.isdecimal() else []


def _lines(path: Path) -> Iterable[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return ()
