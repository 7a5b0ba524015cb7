"""What this machine does in a second, as it was measured once and kept in a file; standard library only.

`core.solver.machine_rates` measures. Whoever has no torch, as the API, reads what a run on the same machine has kept.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib import metadata
from pathlib import Path

_DECIDING = ("bitmill", "torch", "transformers", "numba")


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineRates:
    """Per second and core: operations of float32 and bfloat16 products and of sums of xxᵀ, steps of the column solve.

    memory_bytes: read and written by an operation on tensors. hashed_bytes: SHA-256. numbers: added one by one by the
    interpreter. cores: that a run works on.
    """

    cores: float
    float32_products: float
    bfloat16_products: float
    grams: float
    solved_steps: float
    memory_bytes: float
    hashed_bytes: float
    numbers: float


def rates_file(cache_dir: Path) -> Path:
    """Returns where the rates of this machine lie, under its processor, number of cores and program versions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [_processor(), str(cores), *(f"{name} {_version(name)}" for name in _DECIDING)]
    return cache_dir / "rates" / f"{sha256('; '.join(parts).encode()).hexdigest()[:16]}.json"


def known_rates(cache_dir: Path) -> MachineRates | None:
    """Returns what was measured on this machine; None where nothing was, or where the file does not say it."""
    try:
        values = json.loads(rates_file(cache_dir).read_text("utf-8"))
        rates = MachineRates(**{name: float(value) for name, value in values.items()})
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return rates if all(value > 0 for value in asdict(rates).values()) else None


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
