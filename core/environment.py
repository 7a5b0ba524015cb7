"""What the engine knows and sets about the process that it runs in: versions, numerics, memory."""

from __future__ import annotations

import ctypes
import platform
import resource
from importlib import metadata

import psutil
import torch

_M_MMAP_THRESHOLD = -3
_MMAP_BYTES = 1 << 20


def numerics_profile() -> str:
    """Returns what the bytes of a result depend on besides its inputs: a resume on another profile starts anew."""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__} cpu {platform.machine()} {capability} float32"


def versions() -> dict[str, str]:
    """Returns the versions of the programs that decide a result."""
    names = ("bitmill", "torch", "transformers", "numba", "safetensors")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}


def rss_bytes() -> int:
    """Returns the process's resident memory now."""
    return int(psutil.Process().memory_info().rss)


def peak_rss_bytes() -> int:
    """Returns the largest resident memory that the process had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def return_freed_memory() -> None:
    """Makes the C library give freed memory back to the system, now and at once for large tensors, where it is glibc.

    By default it raises its threshold with every large free and then keeps hundreds of megabytes in fragments.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        libc.malloc_trim(0)
