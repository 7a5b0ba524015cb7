"""What the engine knows and sets about the process that it runs in: versions, numerics, memory."""

from __future__ import annotations

import ctypes
import platform
import resource
import time
from collections.abc import Iterable
from importlib import metadata

import numba
import psutil
import torch

_M_MMAP_THRESHOLD = -3
# Measured on the bench: 1 MiB saves 35 MB more and costs a quarter of the run in page faults; from 32 MiB on nothing is
# saved.
_MMAP_BYTES = 8 << 20
_RATE_WIDTH = 1024
_RATE_TRIES = 7


def forward_dtype(stored: str) -> torch.dtype:
    """Returns the dtype in which blocks run: bfloat16 for weights stored so where the CPU multiplies it, else float32.

    Hessians, factors and the solve are float32 in any case. On the bench model bfloat16 took a quarter off the run and
    left the perplexity where it was.
    """
    capabilities = torch.cpu.get_capabilities()
    native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
    return torch.bfloat16 if stored == "bfloat16" and native else torch.float32


def numerics_profile(dtype: torch.dtype) -> str:
    """Returns what the bytes of a result depend on besides its inputs: a resume on another profile starts anew."""
    capability = torch.backends.cpu.get_cpu_capability()
    name = str(dtype).removeprefix("torch.")
    return f"torch {torch.__version__} cpu {platform.machine()} {capability} {name}"


def match_kernel_threads() -> None:
    """Gives the compiled kernels as many threads as torch has here, so that a job keeps to its share of the machine."""
    most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # numba sets it from its variables
    numba.set_num_threads(min(torch.get_num_threads(), most))


def product_rates(dtypes: Iterable[str]) -> dict[str, float]:
    """Returns the operations per second of this machine's matrix products by dtype name, measured in a blink each."""
    return {name: max(_product_rate(getattr(torch, name)) for _ in range(_RATE_TRIES)) for name in dtypes}


def _product_rate(dtype: torch.dtype) -> float:
    left, right = (torch.ones(_RATE_WIDTH, _RATE_WIDTH, dtype=dtype) for _ in range(2))
    started = time.perf_counter()
    left @ right
    return 2.0 * _RATE_WIDTH**3 / (time.perf_counter() - started)


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
