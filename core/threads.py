"""What a process does before it loads torch, and while it does. Standard library only."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WAIT_POLICY = "OMP_WAIT_POLICY"
_SPIN_COUNT = "GOMP_SPINCOUNT"
# Some microseconds: longer than the gap between two small operations, far shorter than a time slice.
_SPINS = "2000"
_GPU_DEVICES = ("nvidia*", "nvhost*", "nvmap", "kfd", "dxg")


def wait_briefly() -> None:
    """Lets threads spin at a barrier for some microseconds and then sleep.

    Threads that spin for long keep the cores from others: with several jobs on a machine each waits for threads that
    another's spinning keeps off. Threads that sleep at once pay for it after every small operation. The runtime of
    torch's own builds takes the count before the policy; others know the policy only. What the user has set stays.
    """
    os.environ.setdefault(_WAIT_POLICY, "PASSIVE")
    os.environ.setdefault(_SPIN_COUNT, _SPINS)


def leave_out_gpu_compiler(devices: Path = Path("/dev")) -> None:
    """Keeps Triton, where it is installed, from being loaded on a machine without a GPU: torch loads it unasked.

    It compiles for GPUs alone and takes 70 MB. To whoever asks for it, it is absent, which torch and we can live with.
    """
    if "triton" not in sys.modules and not any(next(devices.glob(name), None) for name in _GPU_DEVICES):
        sys.modules["triton"] = None  # type: ignore[assignment]  # what the import system takes for "absent"


@contextmanager
def loading_engine() -> Iterator[None]:
    """Keeps the collector of garbage still while torch and transformers are imported, and what they made out of it.

    Imports leave next to none behind, while every collection looks through all that they made: a fifth of their time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
